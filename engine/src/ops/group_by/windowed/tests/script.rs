//! What happens to an aggregation in windows, one event after the other.

use arrow::record_batch::RecordBatch;
use expect_test::Expect;

use super::driver::Driver;

/// What happens to an aggregation of `x` by `k`.
pub(in crate::ops::group_by::windowed) enum Event<'a> {
    /// Rows that come in one batch.
    Rows(&'a str),
    Watermark(i64),
    Clock(i64),
    End,
}

/// Checks what leaves after each event, at 1 to 3 workers, and with a snapshot and restore after each.
///
/// `make` gives an aggregation on so many workers, `read` rows from their text, and `check_state` looks at what is
/// kept after all events.
pub(in crate::ops::group_by::windowed) fn check_script(
    make: impl Fn(usize) -> Driver,
    read: fn(&str) -> RecordBatch,
    check_state: fn(&Driver),
    events: &[Event<'_>],
    expected: &Expect,
) {
    let run = |n_workers: usize, restores: bool| {
        let mut driver = make(n_workers);
        let mut told = String::new();
        for (n, event) in events.iter().enumerate() {
            let (name, made) = match event {
                Event::Rows(text) => (format!("rows {text}"), driver.rows(n, &read(text))),
                Event::Watermark(time) => (format!("watermark {time}"), driver.watermark(*time)),
                Event::Clock(time) => (format!("clock {time}"), driver.clock(*time)),
                Event::End => ("end".to_owned(), driver.end()),
            };
            told += &format!("{name}\n");
            for row in made {
                told += &format!("    {row}\n");
            }
            if restores {
                driver.restore(n_workers % 3 + 1);
            }
        }
        check_state(&driver);
        match driver.take_late() {
            0 => told,
            n => format!("{told}{n} late\n"),
        }
    };
    let told = run(1, false);
    expected.assert_eq(&told);
    for n_workers in 1..=3 {
        assert_eq!(run(n_workers, false), told, "{n_workers} workers");
        assert_eq!(
            run(n_workers, true),
            told,
            "restored at {n_workers} workers"
        );
    }
}
