//! Learns the distinct words of a column, the most frequent first.

use std::cmp::Reverse;
use std::sync::Arc;

use ahash::AHashMap;
use arrow::array::{ArrayRef, AsArray, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use arrow::record_batch::RecordBatch;
use mainstem_engine::{Analyzer, Error, Result};
use serde::{Deserialize, Serialize};

use super::{foreign_rows, foreign_save, table_bytes};
use crate::learned::text_bytes;
use crate::text::for_each_word;

/// Learns the distinct words of a text column: by falling frequency, then by falling order of their
/// UTF-8 bytes, as tf.Transform sorts them.
///
/// Null and the empty text are left out. The counts of all distinct words are kept in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vocabulary {
    top_k: Option<usize>,
    frequency_threshold: u64,
}

/// What [`Vocabulary`] learns: the words, each at its index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Words(pub Vec<String>);

/// What [`Vocabulary`] has seen: how often each word occurs.
#[derive(Clone, Debug, Default)]
pub struct WordsSeen {
    counts: AHashMap<Box<str>, u64>,
    /// The bytes of all words.
    text_bytes: u64,
}

impl WordsSeen {
    fn add(&mut self, word: &str, n: u64) {
        match self.counts.get_mut(word) {
            Some(count) => *count += n,
            None => self.insert(word.into(), n),
        }
    }

    fn insert(&mut self, word: Box<str>, n: u64) {
        self.text_bytes += word.len() as u64;
        self.counts.insert(word, n);
    }

    /// About: the table with its free places, and the text with what an allocation takes besides.
    fn n_bytes(&self) -> u64 {
        const ALLOCATION: u64 = 16;
        let words = self.counts.len() as u64 * ALLOCATION + self.text_bytes;
        table_bytes::<(Box<str>, u64)>(self.counts.capacity()) + words
    }
}

impl Vocabulary {
    /// All words.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only the first `top_k` words, where some number is given.
    #[must_use]
    pub fn top_k(mut self, top_k: Option<usize>) -> Self {
        self.top_k = top_k;
        self
    }

    /// Only words that occur at least so often.
    #[must_use]
    pub fn frequency_threshold(mut self, frequency_threshold: u64) -> Self {
        self.frequency_threshold = frequency_threshold;
        self
    }
}

impl Analyzer for Vocabulary {
    type Accumulator = WordsSeen;
    type Output = Words;

    fn create_accumulator(&self) -> WordsSeen {
        WordsSeen::default()
    }

    fn add(&self, seen: &mut WordsSeen, rows: &RecordBatch) -> Result<()> {
        for_each_word(text(rows)?, |word, n| {
            seen.add(word, n);
            Ok(())
        })
    }

    fn merge(&self, seen: &mut WordsSeen, other: WordsSeen) -> Result<()> {
        for (word, n) in other.counts {
            match seen.counts.get_mut(&word) {
                Some(count) => *count += n,
                None => seen.insert(word, n),
            }
        }
        Ok(())
    }

    fn retract(&self, seen: &mut WordsSeen, rows: &RecordBatch) -> Result<()> {
        for_each_word(text(rows)?, |word, n| {
            match seen.counts.get_mut(word) {
                Some(count) if *count > n => *count -= n,
                Some(count) if *count == n => {
                    seen.counts.remove(word);
                    seen.text_bytes -= word.len() as u64;
                }
                _ => return Err(Error::data("more rows were taken out than there were")),
            }
            Ok(())
        })
    }

    fn finish(&self, seen: WordsSeen) -> Result<Words> {
        let mut words: Vec<(Box<str>, u64)> = seen
            .counts
            .into_iter()
            .filter(|(_, n)| *n >= self.frequency_threshold)
            .collect();
        words.sort_unstable_by(|(a, n), (b, m)| Reverse((n, a)).cmp(&Reverse((m, b))));
        words.truncate(self.top_k.unwrap_or(usize::MAX));
        Ok(Words(words.into_iter().map(|(w, _)| w.into()).collect()))
    }

    fn accumulator_bytes(&self, seen: &WordsSeen) -> u64 {
        seen.n_bytes()
    }

    fn artifact_bytes(&self, Words(words): &Words) -> u64 {
        let texts = words.iter().map(|w| text_bytes(w.capacity()));
        texts.sum::<u64>() + (words.capacity() * size_of::<String>()) as u64
    }

    fn save(&self, seen: &WordsSeen) -> Result<RecordBatch> {
        let mut words: Vec<(&str, u64)> = seen.counts.iter().map(|(w, n)| (&**w, *n)).collect();
        words.sort_unstable();
        let fields = vec![
            Field::new("word", DataType::Utf8, false),
            Field::new("count", DataType::UInt64, false),
        ];
        Ok(RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            vec![
                Arc::new(StringArray::from_iter_values(words.iter().map(|(w, _)| w))),
                Arc::new(UInt64Array::from_iter_values(words.iter().map(|(_, n)| *n))),
            ],
        )?)
    }

    fn load(&self, saved: &RecordBatch) -> Result<WordsSeen> {
        let words = saved
            .column_by_name("word")
            .and_then(|c| c.as_string_opt::<i32>());
        let counts = saved
            .column_by_name("count")
            .and_then(|c| c.as_primitive_opt::<UInt64Type>());
        let (Some(words), Some(counts)) = (words, counts) else {
            return Err(foreign_save("vocabulary"));
        };
        let mut seen = WordsSeen::default();
        for (word, n) in words.iter().flatten().zip(counts.values()) {
            seen.add(word, *n);
        }
        Ok(seen)
    }
}

fn text(rows: &RecordBatch) -> Result<&ArrayRef> {
    let column = rows.column(0);
    if crate::expression::is_text(column.data_type()) {
        Ok(column)
    } else {
        Err(foreign_rows("vocabulary"))
    }
}

crate::column_analyzer!(Vocabulary, "vocabulary");
