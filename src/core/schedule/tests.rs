//! Windows in time zones, with the two days of the year on which clocks change, and what is no expression.

use super::*;

fn schedule(cron: &str, zone: &str, hours: u64) -> Schedule {
    let zone = TimeZone::get(zone).unwrap();
    Schedule::new(cron, zone, Duration::from_secs(hours * 3600), 3).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The wall clock in Berlin.
fn berlin(text: &str) -> Timestamp {
    let time: jiff::civil::DateTime = text.parse().unwrap();
    time.to_zoned(TimeZone::get("Europe/Berlin").unwrap()).unwrap().timestamp()
}

#[test]
fn a_window_begins_with_its_first_moment_and_ends_before_its_last() {
    let work = schedule("0 8 * * 1-5", "Europe/Berlin", 10);
    // A Monday.
    let (start, end) = (berlin("2026-11-23T08:00:00"), berlin("2026-11-23T18:00:00"));
    let nanosecond = Duration::from_nanos(1);
    assert_eq!(work.until(start - nanosecond), None);
    assert_eq!(work.until(start), Some(end));
    assert_eq!(work.until(start + Duration::from_millis(500)), Some(end));
    assert_eq!(work.until(end - nanosecond), Some(end));
    assert_eq!(work.until(end), None);
    // Saturday.
    assert_eq!(work.until(berlin("2026-11-28T12:00:00")), None);
    assert_eq!(work.next_start(berlin("2026-11-27T08:00:00")), Some(berlin("2026-11-30T08:00:00")));
}

#[test]
fn a_window_may_reach_into_the_next_day() {
    let night = schedule("30 22 * * *", "Europe/Berlin", 8);
    assert_eq!(night.until(berlin("2026-11-24T03:00:00")), Some(berlin("2026-11-24T06:30:00")));
}

#[test]
fn the_offset_of_the_zone_is_that_of_the_day() {
    let morning = schedule("0 8 * * *", "Europe/Berlin", 1);
    assert_eq!(morning.next_start(at("2026-01-10T00:00:00Z")), Some(at("2026-01-10T07:00:00Z")));
    assert_eq!(morning.next_start(at("2026-07-10T00:00:00Z")), Some(at("2026-07-10T06:00:00Z")));
    let utc = schedule("0 8 * * *", "UTC", 1);
    assert_eq!(utc.next_start(at("2026-07-10T00:00:00Z")), Some(at("2026-07-10T08:00:00Z")));
}

#[test]
fn a_time_that_is_left_out_comes_at_the_first_moment_after_it() {
    // 29 March 2026, 02:00 to 03:00 do not exist in Berlin.
    let skipped = schedule("30 2 * * *", "Europe/Berlin", 1);
    assert_eq!(skipped.next_start(berlin("2026-03-29T00:00:00")), Some(berlin("2026-03-29T03:00:00")));
    assert_eq!(skipped.until(berlin("2026-03-29T03:30:00")), Some(berlin("2026-03-29T04:00:00")));
    assert_eq!(skipped.next_start(berlin("2026-03-29T12:00:00")), Some(berlin("2026-03-30T02:30:00")));
}

#[test]
fn a_time_that_comes_twice_counts_once_but_every_hour_is_every_hour() {
    // 25 October 2026: 02:00 to 03:00 come twice, first at +02:00 (00:30 UTC), then at +01:00 (01:30 UTC).
    let once = schedule("30 2 * * *", "Europe/Berlin", 1);
    assert_eq!(once.next_start(at("2026-10-24T22:00:00Z")), Some(at("2026-10-25T00:30:00Z")));
    assert_eq!(once.next_start(at("2026-10-25T00:30:00Z")), Some(at("2026-10-26T01:30:00Z")));
    assert_eq!(once.until(at("2026-10-25T00:45:00Z")), Some(at("2026-10-25T01:30:00Z")));
    assert_eq!(once.until(at("2026-10-25T01:45:00Z")), None, "the second 02:45");
    let hourly = Schedule::new("30 * * * *", once.zone().clone(), Duration::from_secs(60), 1).unwrap();
    let mut starts = Vec::new();
    let mut now = at("2026-10-25T00:00:00Z");
    while starts.len() < 3 {
        now = hourly.next_start(now).unwrap();
        starts.push(now);
    }
    assert_eq!(starts, ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"].map(at));
}

#[test]
fn a_window_over_a_change_of_clocks_lasts_as_long_as_ever() {
    let night = schedule("0 0 * * *", "Europe/Berlin", 8);
    let (spring, autumn) = (berlin("2026-03-29T00:00:00"), berlin("2026-10-25T00:00:00"));
    for start in [spring, autumn] {
        assert_eq!(night.until(start), Some(start + Duration::from_secs(8 * 3600)));
    }
}

#[test]
fn ranges_steps_lists_and_names_are_understood() {
    for (cron, next) in [
        ("*/20 9-17/4 * * *", "2026-11-21T13:00:00Z"),
        ("0 8,20 * * MON-FRI", "2026-11-23T08:00:00Z"),
        ("0 0 1 jan,Jul *", "2027-01-01T00:00:00Z"),
        ("15 6 * * 7", "2026-11-22T06:15:00Z"),
        ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ("0 12 1 * 1", "2026-11-23T12:00:00Z"),
    ] {
        let schedule = schedule(cron, "UTC", 1);
        assert_eq!(schedule.next_start(at("2026-11-21T12:00:00Z")), Some(at(next)), "{cron}");
    }
}

#[test]
fn what_is_wrong_with_an_expression_is_told() {
    let error = |cron| Schedule::new(cron, TimeZone::UTC, Duration::from_secs(1), 1).unwrap_err().to_string();
    for (cron, says) in [
        ("0 8 * *", "it must have five fields and has 4"),
        ("0 0 8 * * 1-5", "it must have five fields and has 6"),
        ("@daily", "it must have five fields and has 1"),
        ("", "it must have five fields and has 0"),
        ("60 8 * * *", "the minute `60`"),
        ("0 24 * * *", "the hour `24`"),
        ("0 8 0 * *", "the day of the month `0`"),
        ("0 8 * 13 *", "the month `13`"),
        ("0 8 * FOO *", "the month `FOO`"),
        ("0 8 * * MO-FR", "the day of the week `MO-FR`"),
        ("0 8 * * 5-1-2", "the day of the week `5-1-2`"),
        ("0 */0 * * *", "the hour `*/0`"),
        ("0 8 30 2 *", "it never comes"),
        ("ä 8 * * *", "the minute `ä`"),
    ] {
        assert!(error(cron).starts_with(says), "{cron}: {}", error(cron));
    }
}

#[test]
fn what_never_comes_is_told_without_a_search() {
    for cron in [
        "0 0 31 2,4,6,9,11 *",
        "0 0 30,31 2 *",
        "*/5 * 31 */2 *",
        "0 0 31 APR *",
        "0 0 31W 2 *",
        "0 0 1 * +MON#5",
    ] {
        let asked = std::time::Instant::now();
        let is_never = Schedule::new(cron, TimeZone::UTC, Duration::from_secs(1), 1);
        let took = asked.elapsed();
        if cron == "*/5 * 31 */2 *" {
            assert!(is_never.is_ok(), "every second month from January on: {is_never:?}");
        } else {
            assert_eq!(is_never, Err(CronError::Never), "{cron}");
        }
        assert!(took < Duration::from_millis(200), "{cron}: {took:?}");
    }
    for cron in ["0 0 29 2 *", "0 0 31 2 1", "0 0 L 2 *", "0 0 30,31 2,3 *"] {
        let schedule = Schedule::new(cron, TimeZone::UTC, Duration::from_secs(1), 1);
        assert!(schedule.is_ok(), "{cron}: {schedule:?}");
    }
}

#[test]
fn the_greatest_of_several_holds_and_every_change_is_known_in_advance() {
    let mut day = schedule("0 8 * * *", "UTC", 10);
    let mut noon = schedule("0 12 * * *", "UTC", 1);
    (day.min, noon.min) = (2, 5);
    noon.name = Some("noon".into());
    let both = [day, noon];
    let holds = |time| in_force(&both, at(time)).map(|window| (window.name, window.min));
    assert_eq!(holds("2026-11-21T07:00:00Z"), None);
    assert_eq!(holds("2026-11-21T09:00:00Z"), Some(("0 8 * * *".into(), 2)));
    assert_eq!(holds("2026-11-21T12:30:00Z"), Some(("noon".into(), 5)));
    let mut now = at("2026-11-21T00:00:00Z");
    let mut changes = Vec::new();
    for _ in 0..5 {
        now = next_change(&both, now).unwrap();
        changes.push(now.to_string());
    }
    let hours = ["21T08", "21T12", "21T13", "21T18", "22T08"];
    assert_eq!(changes, hours.map(|hour| format!("2026-11-{hour}:00:00Z")));
    assert_eq!(next_change(&[], now), None);
}

#[test]
fn windows_without_a_gap_are_one() {
    let always = schedule("0 * * * *", "UTC", 2);
    let now = at("2026-11-21T12:30:00Z");
    assert!(always.until(now).unwrap() > now + Duration::from_secs(48 * 3600));
    assert_eq!(in_force(&[always], now).unwrap().min, 3);
}
