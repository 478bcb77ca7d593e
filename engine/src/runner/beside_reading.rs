//! Transforms that take rows one by one run where the rows are read, on the thread that has just made them.
//!
//! ```text
//! before:  feed ─▶ filter + select ─▶ ...     the rows go to the worker, which lets most of their memory go
//! after:   feed + filter + select ─▶ ...      what leaves is what goes to the worker
//! ```
//!
//! The rows are in that processor's cache then, and what is left out goes back to the allocator on the thread that it
//! came from: where others give it back, each waits for the other's lock.
//!
//! Where reading waits for no other machine, what it asks the pool for is a job at hand, and so are inference and
//! writing behind it: see [`super::pool`].

use super::dataflow::{ChainPart, FeedPart, Part};
use super::pool::Kind;
use crate::transform::Distribution;

/// Gives feeds the light chains that read them and nothing else; the order of the parts stays.
pub(crate) fn run_beside_reading(parts: Vec<Part>) -> Vec<Part> {
    let mut placed: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        let part = match part {
            Part::Chain(chain) if chain.is_light => match feed_of(&mut placed, &chain) {
                Some(feed) => {
                    feed.exits.extend(chain.exits);
                    feed.chains.extend(chain.instances);
                    continue;
                }
                None => Part::Chain(chain),
            },
            other => other,
        };
        placed.push(part);
    }
    let read: Vec<_> = placed.iter().flat_map(Part::reads).collect();
    let at_hand = |part: &Part| !matches!(part, Part::Feed(feed) if !feed.feed.at_hand());
    let all_at_hand = placed.iter().all(at_hand);
    for part in &mut placed {
        match part {
            Part::Feed(feed) => {
                feed.at_hand = all_at_hand;
                let own = (feed.node, feed.port);
                let is_read = read.contains(&own);
                feed.exits.retain(|exit| *exit != own || is_read);
            }
            // What has several instances waits.
            Part::Chain(chain) if all_at_hand && chain.instances.len() == 1 => {
                chain.kind = Kind::AtHand;
            }
            Part::End(end) if all_at_hand && end.writer.at_hand() => end.kind = Kind::AtHand,
            _ => {}
        }
    }
    placed
}

/// The feed whose rows go to the chain as they are, if it reads one.
fn feed_of<'a>(placed: &'a mut [Part], chain: &ChainPart) -> Option<&'a mut FeedPart> {
    let [(read, Distribution::Keep)] = chain.inputs.as_slice() else {
        return None;
    };
    placed.iter_mut().find_map(|part| match part {
        Part::Feed(feed) => ((feed.node, feed.port) == *read).then_some(feed),
        _ => None,
    })
}
