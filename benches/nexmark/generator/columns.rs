//! Columns of events under construction: what an event does not have is null.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, Int64Builder, StringBuilder};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

/// All columns; those of a kind of event are only pushed to by events of that kind.
#[derive(Default)]
pub(super) struct Columns {
    kinds: Vec<i32>,
    times: Vec<i64>,
    pub(super) person: Person,
    pub(super) auction: Auction,
    pub(super) bid: Bid,
}

#[derive(Default)]
pub(super) struct Person {
    pub(super) id: Numbers,
    pub(super) name: Texts,
    pub(super) email: Texts,
    pub(super) credit_card: Texts,
    pub(super) city: Texts,
    pub(super) state: Texts,
    pub(super) extra: Texts,
}

#[derive(Default)]
pub(super) struct Auction {
    pub(super) id: Numbers,
    pub(super) item: Texts,
    pub(super) description: Texts,
    pub(super) initial_bid: Numbers,
    pub(super) reserve: Numbers,
    pub(super) expires: Numbers,
    pub(super) seller: Numbers,
    pub(super) category: Numbers,
    pub(super) extra: Texts,
}

#[derive(Default)]
pub(super) struct Bid {
    pub(super) auction: Numbers,
    pub(super) bidder: Numbers,
    pub(super) price: Numbers,
    pub(super) extra: Texts,
}

impl Columns {
    pub(super) fn with_capacity(n_events: usize) -> Self {
        Self {
            kinds: Vec::with_capacity(n_events),
            times: Vec::with_capacity(n_events),
            ..Self::default()
        }
    }

    /// Begins an event.
    pub(super) fn event(&mut self, kind: i32, time: i64) {
        self.kinds.push(kind);
        self.times.push(time);
    }

    pub(super) fn finish(self, schema: SchemaRef) -> Result<RecordBatch, ArrowError> {
        let kinds = self.kinds;
        let number = |column: Numbers, kind| column.spread(&kinds, kind);
        let text = |column: Texts, kind| column.spread(&kinds, kind);
        let (p, a, b) = (self.person, self.auction, self.bid);
        let (person, auction, bid) = (super::PERSON, super::AUCTION, super::BID);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(kinds.clone())),
            Arc::new(Int64Array::from(self.times)),
            number(p.id, person),
            text(p.name, person),
            text(p.email, person),
            text(p.credit_card, person),
            text(p.city, person),
            text(p.state, person),
            text(p.extra, person),
            number(a.id, auction),
            text(a.item, auction),
            text(a.description, auction),
            number(a.initial_bid, auction),
            number(a.reserve, auction),
            number(a.expires, auction),
            number(a.seller, auction),
            number(a.category, auction),
            text(a.extra, auction),
            number(b.auction, bid),
            number(b.bidder, bid),
            number(b.price, bid),
            text(b.extra, bid),
        ];
        RecordBatch::try_new(schema, columns)
    }
}

/// Numbers of the events of one kind.
#[derive(Default)]
pub(super) struct Numbers(Vec<i64>);

impl Numbers {
    pub(super) fn push(&mut self, number: u64) {
        self.0.push(number as i64);
    }

    /// A column of all events, null where they are of another kind.
    fn spread(self, kinds: &[i32], kind: i32) -> ArrayRef {
        let mut column = Int64Builder::with_capacity(kinds.len());
        let mut numbers = self.0.into_iter();
        for of in kinds {
            column.append_option(if *of == kind { numbers.next() } else { None });
        }
        Arc::new(column.finish())
    }
}

/// Texts of the events of one kind.
#[derive(Default)]
pub(super) struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// As [`Numbers::spread`].
    fn spread(self, kinds: &[i32], kind: i32) -> ArrayRef {
        let mut column = StringBuilder::with_capacity(kinds.len(), self.text.len());
        let mut start = 0;
        let mut ends = self.ends.into_iter();
        for of in kinds {
            let end = if *of == kind { ends.next() } else { None };
            match end {
                Some(end) => {
                    column.append_value(&self.text[start..end]);
                    start = end;
                }
                None => column.append_null(),
            }
        }
        Arc::new(column.finish())
    }
}
