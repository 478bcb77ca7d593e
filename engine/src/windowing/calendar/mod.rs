//! Windows of days and months on the calendar of a time zone.

mod days;
mod months;
mod zone;

pub use days::CalendarDays;
pub use months::CalendarMonths;

use super::window::Window;

/// The window of `time` among those whose edges `edge` gives by their number, ascending, near the number
/// `guess`.
///
/// Where clocks are put back the calendar repeats itself, so the number of the day alone does not say.
fn window_at(time: i64, mut guess: i64, edge: impl Fn(i64) -> i64) -> Window {
    while edge(guess) > time {
        guess -= 1;
    }
    while edge(guess + 1) <= time {
        guess += 1;
    }
    Window {
        start: edge(guess),
        end: edge(guess + 1),
    }
}

#[cfg(test)]
mod tests;
