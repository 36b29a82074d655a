//! How the object store misbehaves for a while.

use std::time::Duration;

use s3_uploader::Weather;

use crate::random::Random;

/// A weather, and how long it lasts in microseconds.
pub(crate) fn draw_weather(random: &mut Random) -> (Weather, u64) {
    let delay_max = Duration::from_millis([1, 20, 300][random.index(3)]);
    let fine = Weather { delay_max, ..Weather::default() };
    match random.below(10) {
        0..=3 => (fine, random.between(1_000_000, 20_000_000)),
        4..=6 => {
            let rough = Weather {
                stalls: 30,
                stall_max: Duration::from_secs(30),
                failures: 200,
                lost_replies: 200,
                damages: 100,
                ..fine
            };
            (rough, random.between(5_000_000, 40_000_000))
        }
        7..=8 => {
            let down = Weather { failures: 1000, ..fine };
            (down, random.between(5_000_000, 120_000_000))
        }
        _ => {
            let hangs = Weather { stalls: 1000, stall_max: Duration::from_secs(60), ..fine };
            (hangs, random.between(5_000_000, 60_000_000))
        }
    }
}
