//! The events of Nexmark: people who join an auction house, auctions that open, and bids.
//!
//! ```text
//! event number   0      1 2 3     4 … 49   50     51 52 53   …
//!                person auctions  bids     person auctions
//! ```
//!
//! Proportions and rules are those of the generator that Apache Beam publishes (`sdks/java/testing/nexmark`,
//! `GeneratorConfig` and `NexmarkConfiguration` with its defaults), which follow Tucker, Tufte, Papadimos and
//! Maier, "NEXMark: A Benchmark for Queries over Data Streams". Random numbers are our own, from a seed: a
//! block of events is the same whoever makes it and whenever.

mod columns;
mod draw;

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use columns::Columns;
use draw::Draw;

/// The value of `kind` for a person.
pub(crate) const PERSON: i32 = 0;
/// The value of `kind` for an auction.
pub(crate) const AUCTION: i32 = 1;
/// The value of `kind` for a bid.
pub(crate) const BID: i32 = 2;

/// Events that are drawn from one stream of random numbers.
pub(crate) const BLOCK: u64 = 8_000;

/// The time of the first event: 15 July 2015.
pub(crate) const BASE_TIME: i64 = 1_436_918_400_000;

/// Of so many events one is a person, some are auctions and the rest bids.
const PROPORTION: u64 = 50;
const AUCTIONS: u64 = 3;
const EVENTS_PER_MS: u64 = 10;

const FIRST_ID: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const N_CATEGORIES: u64 = 5;
/// Ids that may be drawn before the event that brings them.
const LEAD: u64 = 10;
/// People who do something.
const N_ACTIVE: u64 = 1_000;
/// Auctions that are open at a time, about.
const N_OPEN: u64 = 100;
/// The one hot auction, seller and bidder changes with every so many.
const HOT_EVERY: u64 = 100;
/// One bid in two is on the hot auction.
const HOT_AUCTION_RATIO: u64 = 2;
/// Three auctions in four are the hot seller's, three bids in four the hot bidder's.
const HOT_PERSON_RATIO: u64 = 4;

/// Bytes of a person, an auction and a bid, on average, which `extra` fills up.
const PERSON_BYTES: usize = 200;
const AUCTION_BYTES: usize = 500;
const BID_BYTES: usize = 100;

const GIVEN_NAMES: [&str; 8] = [
    "Ada", "Bjarne", "Carla", "Dmitri", "Edsger", "Frances", "Grace", "Hal",
];
const FAMILY_NAMES: [&str; 8] = [
    "Abel", "Brandt", "Castro", "Dahl", "Egede", "Fischer", "Grieg", "Holm",
];
const CITIES: [&str; 8] = [
    "Bend", "Boise", "Cheyenne", "Fresno", "Mesa", "Salem", "Spokane", "Tucson",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// When an event happens, in milliseconds since 1970.
pub(crate) fn time_of(event: u64) -> i64 {
    BASE_TIME + (event / EVENTS_PER_MS) as i64
}

/// The columns: `kind` and `date_time` of every event, the others null but for their kind.
pub(crate) fn schema() -> SchemaRef {
    let always = |name, data_type| Field::new(name, data_type, false);
    let number = |name| Field::new(name, DataType::Int64, true);
    let text = |name| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        always("kind", DataType::Int32),
        always("date_time", DataType::Int64),
        number("p_id"),
        text("p_name"),
        text("p_email"),
        text("p_credit_card"),
        text("p_city"),
        text("p_state"),
        text("p_extra"),
        number("a_id"),
        text("a_item"),
        text("a_description"),
        number("a_initial_bid"),
        number("a_reserve"),
        number("a_expires"),
        number("a_seller"),
        number("a_category"),
        text("a_extra"),
        number("b_auction"),
        number("b_bidder"),
        number("b_price"),
        text("b_extra"),
    ]))
}

/// How many blocks so many events are.
pub(crate) fn n_blocks(n_events: u64) -> u64 {
    n_events.div_ceil(BLOCK)
}

/// The events of a block, of which there are `n_events` in all.
///
/// # Errors
/// If Arrow refuses the columns.
pub(crate) fn block(number: u64, n_events: u64) -> Result<RecordBatch, ArrowError> {
    let events = number * BLOCK..((number + 1) * BLOCK).min(n_events);
    let mut draw = Draw::new(number);
    let mut columns = Columns::with_capacity(events.clone().count());
    for event in events {
        match event % PROPORTION {
            0 => person(event, &mut draw, &mut columns),
            n if n <= AUCTIONS => auction(event, &mut draw, &mut columns),
            _ => bid(event, &mut draw, &mut columns),
        }
    }
    columns.finish(schema())
}

fn person(event: u64, draw: &mut Draw, columns: &mut Columns) {
    let name = format!("{} {}", draw.of(&GIVEN_NAMES), draw.of(&FAMILY_NAMES));
    let mut email = draw.letters(7).to_owned();
    email = email + "@" + draw.letters(5) + ".com";
    let group = |draw: &mut Draw| draw.within(1_000..10_000);
    let card = [(); 4].map(|()| group(draw).to_string()).join(" ");
    let (city, state) = (draw.of(&CITIES), draw.of(&STATES));
    let n_bytes = 8 + name.len() + email.len() + card.len() + city.len() + state.len();
    columns.event(PERSON, time_of(event));
    columns.person.id.push(FIRST_ID + newest_person(event));
    columns.person.name.push(&name);
    columns.person.email.push(&email);
    columns.person.credit_card.push(&card);
    columns.person.city.push(city);
    columns.person.state.push(state);
    columns.person.extra.push(draw.fill(n_bytes, PERSON_BYTES));
}

fn auction(event: u64, draw: &mut Draw, columns: &mut Columns) {
    let initial = draw.price();
    let seller = match draw.is_hot(HOT_PERSON_RATIO) {
        true => newest_person(event) / HOT_EVERY * HOT_EVERY,
        false => draw.within(active_people(event)),
    };
    // So long that about as many as should be are open at a time: from a moment to twice that.
    let ahead = time_of(event + N_OPEN * PROPORTION / AUCTIONS) - time_of(event);
    let lasts = 1 + draw.within(0..(2 * ahead as u64).max(1));
    let (n_item, n_description) = (draw.within(3..20), draw.within(3..100));
    let n_bytes = 8 + n_item as usize + n_description as usize + 5 * 8;
    columns.event(AUCTION, time_of(event));
    let to = &mut columns.auction;
    to.id.push(FIRST_ID + newest_auction(event));
    to.item.push(draw.letters(n_item as usize));
    to.description.push(draw.letters(n_description as usize));
    to.initial_bid.push(initial);
    to.reserve.push(initial + draw.price());
    to.expires.push(time_of(event) as u64 + lasts);
    to.seller.push(FIRST_ID + seller);
    to.category
        .push(FIRST_CATEGORY + draw.within(0..N_CATEGORIES));
    to.extra.push(draw.fill(n_bytes, AUCTION_BYTES));
}

fn bid(event: u64, draw: &mut Draw, columns: &mut Columns) {
    let auction = match draw.is_hot(HOT_AUCTION_RATIO) {
        true => newest_auction(event) / HOT_EVERY * HOT_EVERY,
        false => draw.within(open_auctions(event)),
    };
    // Beside the hot seller, so that these are two people.
    let bidder = match draw.is_hot(HOT_PERSON_RATIO) {
        true => newest_person(event) / HOT_EVERY * HOT_EVERY + 1,
        false => draw.within(active_people(event)),
    };
    columns.event(BID, time_of(event));
    let to = &mut columns.bid;
    to.auction.push(FIRST_ID + auction);
    to.bidder.push(FIRST_ID + bidder);
    to.price.push(draw.price());
    to.extra.push(draw.fill(4 * 8, BID_BYTES));
}

/// The last person up to an event, from 0.
fn newest_person(event: u64) -> u64 {
    event / PROPORTION
}

/// The last auction up to an event, from 0; the event is no person's.
fn newest_auction(event: u64) -> u64 {
    let since_person = (event % PROPORTION).clamp(1, AUCTIONS);
    event / PROPORTION * AUCTIONS + since_person - 1
}

/// The newest people, and some who are still to come.
fn active_people(event: u64) -> Range<u64> {
    let n_people = newest_person(event) + 1;
    n_people.saturating_sub(N_ACTIVE)..n_people + LEAD
}

/// The newest auctions, and some that are still to come.
fn open_auctions(event: u64) -> Range<u64> {
    let newest = newest_auction(event);
    newest.saturating_sub(N_OPEN)..newest + 1 + LEAD
}
