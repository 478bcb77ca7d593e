//! How the text of a CSV file is cut into values.

use super::text_splits::RowEnds;
use crate::error::{Error, Result};

/// How the text of a file is cut into values.
#[derive(Clone, Debug)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    /// What quotes a field, if anything does.
    pub(crate) quote: Option<u8>,
    /// What a line of comment begins with.
    pub(crate) comment: Option<u8>,
    pub(crate) trim: bool,
    pub(crate) nulls: Vec<String>,
    pub(crate) max_row_bytes: u64,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: Some(b'"'),
            comment: None,
            trim: false,
            nulls: Vec::new(),
            max_row_bytes: 128 << 20,
        }
    }
}

impl Dialect {
    /// Checks that no two characters of the dialect are the same.
    pub(crate) fn check(&self) -> Result<()> {
        let marks = [
            ("delimiter", Some(self.delimiter)),
            ("quote", self.quote),
            ("comment", self.comment),
        ];
        for (i, (name, mark)) in marks.iter().enumerate() {
            let Some(byte) = mark else { continue };
            let shown = char::from(*byte);
            if matches!(byte, b'\n' | b'\r') {
                return Err(Error::pipeline(format!(
                    "the {name} of CSV files must not be a line break, found {shown:?}"
                )));
            }
            if let Some((other, _)) = marks[..i].iter().find(|(_, m)| m == mark) {
                return Err(Error::pipeline(format!(
                    "the {name} and the {other} of CSV files are both {shown:?}"
                ))
                .with_hint("Choose another one for one of them."));
            }
        }
        Ok(())
    }

    /// What ends a row.
    pub(crate) fn row_ends(&self) -> RowEnds {
        RowEnds::Csv {
            quote: self.quote,
            delimiter: self.delimiter,
        }
    }
}
