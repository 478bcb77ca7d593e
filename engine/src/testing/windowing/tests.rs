//! Every kind of trigger, and compositions of them, in windows of every kind.

use expect_test::expect;

use super::*;
use crate::windowing::{Closing, Trigger};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A trigger of each kind, most of them in others.
fn triggers() -> Vec<Trigger> {
    let count = Trigger::after_count;
    let clock = || Trigger::after_processing_time(ms(15));
    let end = Trigger::after_watermark;
    vec![
        Trigger::Default,
        end(),
        end().early(count(2)),
        end().late(count(1)),
        end().early(count(2)).late(count(2)),
        end().early(clock()).late(count(1)),
        Trigger::always(),
        count(3).repeatedly(),
        clock().repeatedly(),
        Trigger::after_any([count(4), clock()]).repeatedly(),
        Trigger::after_all([count(2), clock()]).repeatedly(),
        Trigger::after_each([count(2), count(1), clock()]).repeatedly(),
        Trigger::after_each([end(), count(1).repeatedly()]),
        count(2).repeatedly().or_finally(end()).repeatedly(),
        end()
            .early(Trigger::after_any([
                count(3),
                Trigger::after_all([count(2), clock()]),
            ]))
            .late(clock()),
    ]
}

#[test]
fn every_trigger_keeps_the_laws_in_every_kind_of_windows() {
    let windows = [
        Windowing::fixed(ms(30)),
        Windowing::sliding(ms(45), ms(15)),
        Windowing::sessions(ms(12)),
        Windowing::global(),
    ];
    let mut refused = Vec::new();
    for trigger in triggers() {
        for windowing in &windows {
            for lateness in [0, 40] {
                let windowing = windowing.clone().trigger(trigger.clone());
                let windowing = windowing.allowed_lateness(ms(lateness));
                match windowing.check() {
                    Ok(()) => check_windowing(&windowing, ms(10), 2),
                    Err(_) => refused.push(format!("{trigger}, lateness {lateness}")),
                }
            }
        }
    }
    // Triggers that have finished when rows come that the windows still take.
    refused.dedup();
    expect![[r#"
        AfterWatermark, lateness 40
        AfterWatermark(early=AfterCount(2)), lateness 40"#]]
    .assert_eq(&refused.join("\n"));
}

#[test]
fn so_do_windows_that_always_have_a_last_pane_and_triggers_that_end() {
    let fixed = Windowing::fixed(ms(30)).allowed_lateness(ms(40));
    let never = fixed.clone().trigger(Trigger::Never);
    for windowing in [
        fixed.clone().closing(Closing::FireAlways),
        never
            .clone()
            .closing(Closing::FireAlways)
            .allow_data_loss(true),
        fixed
            .clone()
            .trigger(Trigger::after_count(2))
            .allow_data_loss(true),
    ] {
        check_windowing(&windowing, ms(10), 12);
    }
}
