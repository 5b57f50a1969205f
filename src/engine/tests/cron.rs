use proptest::prelude::*;

use super::*;

fn cron(text: &str, name: &str) -> Cron {
    Cron::parse(text, zone(name).expect(name)).expect(text)
}

/// The first firings after a time, as the clock of the zone shows them.
fn firings(text: &str, name: &str, after: &str, count: usize) -> Vec<String> {
    let cron = cron(text, name);
    let mut time: Timestamp = after.parse().unwrap();
    let zone = zone(name).unwrap();
    (0..count)
        .map(|_| {
            time = cron.after(time).expect("it fires");
            let shown = time.to_zoned(zone.clone());
            shown.strftime("%Y-%m-%dT%H:%M%:z").to_string()
        })
        .collect()
}

#[test]
fn fires_by_the_clock_of_its_zone() {
    for (text, name, after, expected) in [
        ("0 9 * * *", "UTC", "2026-03-01T09:00:00Z", "2026-03-02T09:00+00:00"),
        ("0 9 * * *", "UTC", "2026-03-01T08:59:59.999Z", "2026-03-01T09:00+00:00"),
        ("30 9 * * mon-fri", "Europe/Berlin", "2026-01-02T12:00:00Z", "2026-01-05T09:30+01:00"),
        ("*/15 * * * *", "Asia/Kolkata", "2026-01-01T00:01:00Z", "2026-01-01T05:45+05:30"),
        ("0 0 1 1 *", "America/New_York", "2026-06-01T00:00:00Z", "2027-01-01T00:00-05:00"),
        ("@monthly", "UTC", "2026-12-01T00:00:00Z", "2027-01-01T00:00+00:00"),
        ("0 0 29 2 *", "UTC", "2024-03-01T00:00:00Z", "2028-02-29T00:00+00:00"),
        // no leap year in 2100
        ("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", "2104-02-29T00:00+00:00"),
        // `*/7` begins with an asterisk: day and weekday must both hold
        ("0 0 29 2 */7", "UTC", "2032-03-01T00:00:00Z", "2060-02-29T00:00+00:00"),
        // otherwise either
        ("0 0 13 * 5", "UTC", "2026-01-01T00:00:00Z", "2026-01-02T00:00+00:00"),
        ("0 0 31 12 7", "UTC", "2026-12-27T00:00:00Z", "2026-12-31T00:00+00:00"),
    ] {
        assert_eq!(firings(text, name, after, 1), [expected], "{text} {name}");
    }
}

#[test]
fn a_time_that_the_clock_skips_fires_when_it_jumps() {
    // Berlin: 02:00 is followed by 03:00 on 2026-03-29
    assert_eq!(
        firings("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]
    );
    // all that is skipped fires once, together with what is due then anyway
    assert_eq!(
        firings("*/20 * * * *", "Europe/Berlin", "2026-03-29T00:39:00Z", 3),
        ["2026-03-29T01:40+01:00", "2026-03-29T03:00+02:00", "2026-03-29T03:20+02:00"]
    );
    // Samoa had no 30 December in 2011
    assert_eq!(
        firings("0 12 * * *", "Pacific/Apia", "2011-12-29T23:00:00Z", 2),
        ["2011-12-31T00:00+14:00", "2011-12-31T12:00+14:00"]
    );
    // half an hour on Lord Howe Island
    assert_eq!(firings("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 1), ["2026-10-04T02:30+11:00"]);
}

#[test]
fn a_time_that_the_clock_shows_twice_fires_the_first_time() {
    // New York: 01:59 is followed by 01:00 on 2026-11-01
    assert_eq!(
        firings("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2),
        ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]
    );
    assert_eq!(
        firings("*/30 * * * *", "America/New_York", "2026-11-01T04:31:00Z", 3),
        ["2026-11-01T01:00-04:00", "2026-11-01T01:30-04:00", "2026-11-01T02:00-05:00"]
    );
    // asked for between the first and the second showing, and during the second
    for after in ["2026-11-01T05:45:00Z", "2026-11-01T06:15:00Z", "2026-11-01T06:30:00Z"] {
        assert_eq!(firings("30 1 * * *", "America/New_York", after, 1), ["2026-11-02T01:30-05:00"], "{after}");
    }
}

#[test]
fn refuses_what_never_fires_and_what_is_no_expression() {
    for (text, expected) in [
        ("0 0 31 2 *", "never fires"),
        ("0 0 30,31 FEB *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("", "has 0 fields"),
        ("* * * *", "has 4 fields"),
        ("0 0 * * * Europe/Berlin", "has 6 fields"),
        ("0 0 0 * * *", "has 6 fields"),
        ("60 * * * *", "must be in range"),
        ("0 24 * * *", "must be in range"),
        ("0 0 0 * *", "must be in range"),
        ("0 0 * 13 *", "must be in range"),
        ("*/0 * * * *", "greater than 0"),
        ("5-1 * * * *", "ascending order"),
        ("0 0 L * *", "no cron expression"),
        ("0 0 15W * *", "no cron expression"),
        ("0 0 * * 1#2", "no cron expression"),
        ("0 0 * * 5L", "no cron expression"),
        ("H 0 * * *", "no cron expression"),
        ("0 0 * * ?", "no cron expression"),
        ("0 0 * * mön", "no cron expression"),
        ("0 0 * * MOO", "no cron expression"),
        ("@reboot", "is none of @hourly"),
        ("@every 5m", "is none of @hourly"),
    ] {
        let problem = Cron::parse(text, TimeZone::UTC).map(|cron| cron.text().to_owned()).expect_err(text);
        assert!(problem.contains(expected) && !problem.contains('\n'), "{text}: {problem}");
    }
    assert!(Cron::parse(&"*".repeat(300), TimeZone::UTC).is_err());
}

#[test]
fn zones_come_with_the_program() {
    assert!(zone("Europe/Berlin").is_some() && zone("europe/berlin").is_some() && zone("UTC").is_some());
    assert!(zone("Europe/Berln").is_none() && zone("").is_none() && zone("../etc/passwd").is_none());
    assert!(zones().iter().any(|name| name == "America/New_York"));
    assert_eq!(cron("@daily", "Europe/Berlin").zone(), "Europe/Berlin");
    assert_eq!(cron("@daily", "UTC").zone(), "UTC");
}

proptest! {
    /// Whatever users write: an expression or a problem, in good time.
    #[test]
    fn no_text_is_too_odd(text in "[-*/,0-9A-Za-z@# \u{e4}]{0,24}") {
        if let Ok(cron) = Cron::parse(&text, TimeZone::UTC) {
            prop_assert!(cron.after(Timestamp::UNIX_EPOCH).is_some());
        }
    }

    /// Firings come in order, later than asked, at times that the clock does show or skips; and each only once.
    #[test]
    fn firings_follow_each_other(
        text in prop::sample::select(vec!["*/7 * * * *", "30 1-3 * * *", "0 0 * * *", "15 2 29 3 *", "59 23 31 12 *"]),
        name in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"]),
        second in 0..2_000_000_000i64,
    ) {
        let cron = cron(text, name);
        let start = Timestamp::from_second(second).unwrap();
        let first = cron.after(start).unwrap();
        prop_assert!(first > start);
        let second = cron.after(first).unwrap();
        prop_assert!(second > first);
        // nothing lies between: asked a moment before, it says the same
        prop_assert_eq!(cron.after(first - 1.millisecond()).unwrap(), first);
        prop_assert_eq!(cron.after(second - 1.millisecond()).unwrap(), second);
    }
}

/// A graph may hold 2,000 of them, each of which never fires.
#[test]
fn an_expression_that_never_fires_is_found_out_fast() {
    let start = std::time::Instant::now();
    for minute in 0..50 {
        assert!(Cron::parse(&format!("{minute} 0 31 2 *"), TimeZone::UTC).is_err());
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(2), "{:?}", start.elapsed());
}
