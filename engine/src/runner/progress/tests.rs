//! What bars and lines say, on terminals of several widths.

use std::io;
use std::sync::{Arc, Mutex};

use expect_test::{Expect, expect};
use indicatif::TermLike;

use super::super::metrics::Expected;
use super::*;

fn counts(rows: u64, n_rows: Option<u64>, bytes: u64, n_bytes: Option<u64>) -> Counts {
    Counts {
        rows_in: rows,
        bytes_read: bytes,
        expected: Expected { n_rows, n_bytes },
        ..Counts::default()
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A source that has read this after two seconds.
fn read(rows: u64, n_rows: Option<u64>, bytes: u64, n_bytes: Option<u64>) -> Standing {
    let mut standing = Standing::default();
    standing.look(&counts(rows, n_rows, bytes, n_bytes), Role::Source, at(2));
    standing
}

#[test]
fn words_say_what_is_known() {
    let say = |standing: Standing, expected: Expect| expected.assert_eq(&standing.words());
    say(Standing::default(), expect!["0 rows"]);
    say(
        read(12_600_000, Some(20_000_000), 310_000_000, Some(490_000_000)),
        expect!["63 %, 2 s left, 12.6 M of 20 M rows, 6.3 M rows/s, 310 MB of 490 MB"],
    );
    say(
        read(12_600_000, None, 245_000_000, Some(490_000_000)),
        expect!["50 %, 2 s left, 12.6 M rows, 6.3 M rows/s, 245 MB of 490 MB"],
    );
    say(read(800, None, 0, None), expect!["800 rows, 400 rows/s"]);
    say(read(0, Some(0), 0, Some(0)), expect!["0 of 0 rows"]);
    say(
        read(100, Some(100), 0, None),
        expect!["100 %, 100 of 100 rows, 50 rows/s"],
    );
}

#[test]
fn rows_that_need_not_be_read_are_as_good_as_read() {
    let mut standing = Standing::default();
    let counts = Counts {
        pruned: 50,
        ..counts(25, Some(100), 0, None)
    };
    standing.look(&counts, Role::Source, at(1));
    assert_eq!(standing.part(), Some(0.75));
}

#[test]
fn a_trainer_counts_the_rows_of_all_its_passes() {
    let mut standing = Standing::default();
    let counts = Counts {
        trained: 30,
        to_train: 120,
        ..Counts::default()
    };
    standing.look(&counts, Role::Trainer, at(10));
    expect!["25 %, 30 s left, 30 of 120 rows, 3 rows/s"].assert_eq(&standing.words());
}

#[test]
fn the_pace_follows_slowly_and_a_stop_says_no_time() {
    let mut standing = read(2_000, Some(100_000), 0, None);
    assert_eq!(standing.row_pace.per_second, 1_000.0);
    for second in 3..60 {
        let stalled = counts(2_000, Some(100_000), 0, None);
        standing.look(&stalled, Role::Source, at(second));
    }
    assert!(standing.row_pace.per_second < 0.01);
    expect!["2 %, 3 h 1 min left, 2,000 of 100 k rows, 0 rows/s"].assert_eq(
        &{
            let mut slow = standing.clone();
            slow.part_pace.per_second = 0.000_09;
            slow
        }
        .words(),
    );
}

#[test]
fn both_templates_are_understood() {
    assert!(ProgressStyle::with_template(KNOWN).is_ok());
    assert!(ProgressStyle::with_template(UNKNOWN).is_ok());
}

/// A terminal that keeps what is written to it.
#[derive(Clone, Debug)]
struct Paper {
    width: u16,
    text: Arc<Mutex<String>>,
}

impl TermLike for Paper {
    fn width(&self) -> u16 {
        self.width
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.write_str(&format!("{line}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.text.lock().unwrap().push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.text.lock().unwrap().clear();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The last thing drawn on a terminal of this width, with its ends marked.
fn drawn(width: u16, node: &str, standing: &Standing) -> String {
    let paper = Paper {
        width,
        text: Arc::default(),
    };
    let target = ProgressDrawTarget::term_like(Box::new(paper.clone()));
    let mut bars = Bars::on(target);
    bars.show([(node, standing)].into_iter());
    let text = paper.text.lock().unwrap().clone();
    assert!(
        text.chars().count() <= usize::from(width),
        "{text:?} is wider than {width}"
    );
    format!("|{}|", text.trim_end())
}

#[test]
fn a_narrow_terminal_cuts_what_matters_least() {
    let births = read(12_600_000, Some(20_000_000), 310_000_000, Some(490_000_000));
    let long = "features/natality/mother_age";
    expect!["|births           ███████░░░░░ 63 %, 2 s left, 12.6 M of 20 M rows, 6.3 M rows/s, 310 MB of 490 MB|"]
        .assert_eq(&drawn(100, "births", &births));
    expect!["|feature…ther_age ███████░░░░░ 63 %, 2 s left|"].assert_eq(&drawn(44, long, &births));
    expect!["|births           ⠁            12.6 M rows, 6.3 M rows/|"].assert_eq(&drawn(
        54,
        "births",
        &read(12_600_000, None, 0, None),
    ));
}
