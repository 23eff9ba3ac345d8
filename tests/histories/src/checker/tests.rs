//! Histories that break each rule, and the ones beside them that do not.

use super::{Counts, Rule, check};
use crate::history::{
    Answer, ClockSet, Fault, History, MemoryStart, Place, Promise, Purpose, Request, Span, TokenId,
};

const TOLERANCE: i64 = 2_000;
const PATIENCE: i64 = 250;

/// Begins at second 100 by all clocks.
fn history() -> History {
    History::new(TOLERANCE, PATIENCE, Promise::Once)
}

fn token(history: &mut History, time: i64) -> usize {
    let nonce = history.tokens.len().to_string();
    history.tokens.push(TokenId { username: "guido".to_owned(), time, nonce });
    history.tokens.len() - 1
}

/// A request that takes 10 ms.
fn request(history: &mut History, token: usize, server: usize, from: i64, answer: Answer) {
    let span = Span { from, to: from + 10 };
    history.requests.push(Request { token, server, purpose: Purpose::First, span, answer });
}

fn store_fault(from: i64, to: i64, settled: i64) -> Fault {
    Fault {
        kind: "killed",
        place: Place::Store,
        disturbs_all: true,
        span: Span { from, to },
        blackout: Some(Span { from: from + 100, to: to - 100 }),
        forgets: false,
        episode: 0,
        settled: Some(settled),
        good_from: 0,
    }
}

fn server_fault(server: usize, from: i64, to: i64, settled: i64) -> Fault {
    let place = Place::Server(server);
    Fault { place, disturbs_all: false, blackout: None, ..store_fault(from, to, settled) }
}

#[track_caller]
fn holds(history: &History) {
    assert_eq!(check(history), []);
}

#[track_caller]
fn breaks(history: &History, rule: Rule, requests: &[usize]) {
    let found = check(history);
    let found: Vec<_> =
        found.iter().map(|violation| (violation.rule, violation.requests.as_slice())).collect();
    assert_eq!(found, [(rule, requests)]);
}

const OK: Answer = Answer::Status(200);
const REFUSED: Answer = Answer::Status(401);
const UNAVAILABLE: Answer = Answer::Status(503);

#[test]
fn one_acceptance_and_refusals_after_it_are_right() {
    let mut history = history();
    let token = token(&mut history, 100);
    request(&mut history, token, 0, 100_000, OK);
    request(&mut history, token, 1, 100_005, REFUSED);
    request(&mut history, token, 0, 101_000, REFUSED);
    holds(&history);
}

#[test]
fn a_second_acceptance_is_found_however_late_and_wherever() {
    for (server, from) in [(0, 100_000), (1, 100_005), (0, 101_900), (1, 99_000)] {
        let mut history = history();
        let token = token(&mut history, 100);
        request(&mut history, token, 0, 100_000, OK);
        request(&mut history, token, server, from, OK);
        let order = if from < 100_000 { [1, 0] } else { [0, 1] };
        breaks(&history, Rule::Once, &order);
    }
}

#[test]
fn a_second_acceptance_is_found_in_the_midst_of_a_fault() {
    let mut history = history();
    history.faults.push(Fault { forgets: true, ..store_fault(100_100, 100_500, 101_000) });
    let token = token(&mut history, 100);
    request(&mut history, token, 0, 100_000, OK);
    request(&mut history, token, 1, 100_600, OK);
    breaks(&history, Rule::Once, &[0, 1]);
}

#[test]
fn other_tokens_with_a_part_in_common_are_others() {
    let mut history = history();
    for (username, time) in [("guido", 100), ("anna", 100), ("guido", 101)] {
        history.tokens.push(TokenId { username: username.to_owned(), time, nonce: "same".to_owned() });
        let token = history.tokens.len() - 1;
        request(&mut history, token, 0, 100_000, OK);
    }
    holds(&history);
}

#[test]
fn a_start_of_a_memory_excuses_what_it_leaves_open_only() {
    let start = |server| MemoryStart { server, span: Span { from: 100_300, to: 100_900 } };
    for (promise, start, time, holds_so) in [
        (Promise::OncePerStart, start(0), 100, true),
        // Dated before the second of the start.
        (Promise::OncePerStart, start(0), 99, false),
        (Promise::OncePerStart, start(1), 100, false),
        (Promise::Once, start(0), 100, false),
        // Before the first use, and after the second one.
        (
            Promise::OncePerStart,
            MemoryStart { span: Span { from: 99_000, to: 99_900 }, ..start(0) },
            100,
            false,
        ),
        (
            Promise::OncePerStart,
            MemoryStart { span: Span { from: 101_500, to: 102_000 }, ..start(0) },
            100,
            false,
        ),
    ] {
        let mut history = History::new(TOLERANCE, PATIENCE, promise);
        history.starts.push(start);
        let token = token(&mut history, time);
        request(&mut history, token, 0, 100_000, OK);
        request(&mut history, token, 0, 100_920, OK);
        if holds_so {
            holds(&history);
        } else {
            breaks(&history, Rule::Once, &[0, 1]);
        }
    }
}

#[test]
fn the_second_of_a_start_is_by_the_servers_clock() {
    let mut history = History::new(TOLERANCE, PATIENCE, Promise::OncePerStart);
    history.clocks.push(ClockSet { server: 0, span: Span { from: 0, to: 0 }, ahead: 1_000 });
    history.starts.push(MemoryStart { server: 0, span: Span { from: 100_300, to: 100_900 } });
    let token = token(&mut history, 100);
    request(&mut history, token, 0, 100_000, OK);
    request(&mut history, token, 0, 100_920, OK);
    breaks(&history, Rule::Once, &[0, 1]);
}

#[test]
fn a_refusal_of_a_good_token_is_found_even_in_a_fault() {
    for faults in [vec![], vec![store_fault(99_000, 103_000, 104_000)]] {
        let mut history = history();
        history.faults = faults;
        let token = token(&mut history, 100);
        request(&mut history, token, 0, 100_000, REFUSED);
        breaks(&history, Rule::GoodIsNotRefused, &[0]);
    }
}

#[test]
fn a_refusal_before_the_use_is_found() {
    let mut history = history();
    let token = token(&mut history, 100);
    request(&mut history, token, 0, 100_000, REFUSED);
    request(&mut history, token, 0, 100_100, OK);
    breaks(&history, Rule::GoodIsNotRefused, &[0]);
}

#[test]
fn refusals_of_each_other_are_found() {
    let mut history = history();
    let token = token(&mut history, 100);
    request(&mut history, token, 0, 100_000, REFUSED);
    request(&mut history, token, 1, 100_000, REFUSED);
    let rules: Vec<_> = check(&history).iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Rule::GoodIsNotRefused; 2]);
}

#[test]
fn a_refusal_after_an_unknown_outcome_is_right() {
    for answer in [UNAVAILABLE, Answer::Nothing] {
        let mut history = history();
        history.faults.push(store_fault(99_000, 100_050, 100_060));
        history.faults.push(server_fault(0, 99_000, 100_050, 100_060));
        let token = token(&mut history, 100);
        request(&mut history, token, 0, 100_000, answer);
        request(&mut history, token, 1, 100_100, REFUSED);
        holds(&history);
    }
}

/// It was refused for its date, and then it cannot have used the token up.
#[test]
fn a_refusal_after_one_for_the_date_is_found() {
    let mut history = history();
    let token = token(&mut history, 104);
    request(&mut history, token, 0, 100_000, REFUSED);
    request(&mut history, token, 0, 103_000, REFUSED);
    breaks(&history, Rule::GoodIsNotRefused, &[1]);
}

#[test]
fn at_the_edge_of_the_window_either_answer_is_right() {
    for (time, from) in [(100, 101_995), (102, 99_995)] {
        for answer in [OK, REFUSED] {
            let mut history = history();
            let token = token(&mut history, time);
            request(&mut history, token, 0, from, answer);
            holds(&history);
        }
    }
}

#[test]
fn what_is_outside_of_the_window_is_refused_even_in_a_fault() {
    for time in [97, 103] {
        for (answer, is_right) in [(OK, false), (UNAVAILABLE, false), (REFUSED, true)] {
            let mut history = history();
            history.faults.push(Fault { blackout: None, ..store_fault(99_000, 103_000, 104_000) });
            let token = token(&mut history, time);
            request(&mut history, token, 0, 100_000, answer);
            if is_right {
                holds(&history);
            } else {
                breaks(&history, Rule::BadDateIsRefused, &[0]);
            }
        }
    }
}

#[test]
fn the_window_is_that_of_the_servers_clock() {
    for (ahead, time, is_inside) in [(30_000, 130, true), (30_000, 100, false), (-30_000, 70, true)] {
        let mut history = history();
        history.clocks.push(ClockSet { server: 1, span: Span { from: 0, to: 0 }, ahead });
        let token = token(&mut history, time);
        request(&mut history, token, 1, 100_000, if is_inside { OK } else { REFUSED });
        holds(&history);
        history.requests[0].answer = if is_inside { REFUSED } else { OK };
        let rule = if is_inside { Rule::GoodIsNotRefused } else { Rule::BadDateIsRefused };
        breaks(&history, rule, &[0]);
    }
}

#[test]
fn while_a_clock_is_set_either_time_may_count() {
    let mut history = history();
    history.clocks.push(ClockSet { server: 0, span: Span { from: 0, to: 0 }, ahead: 0 });
    history.clocks.push(ClockSet { server: 0, span: Span { from: 100_002, to: 100_005 }, ahead: 30_000 });
    for time in [100, 130] {
        for answer in [OK, REFUSED] {
            let mut history = history.clone();
            let token = token(&mut history, time);
            request(&mut history, token, 0, 100_000, answer);
            holds(&history);
        }
    }
    let token = token(&mut history, 100);
    request(&mut history, token, 0, 100_006, OK);
    breaks(&history, Rule::BadDateIsRefused, &[0]);
}

#[test]
fn unavailable_while_all_is_up_is_found() {
    let mut history = history();
    let token = token(&mut history, 100);
    history.faults.push(store_fault(90_000, 91_000, 99_999));
    history.faults.push(store_fault(100_011, 101_000, 102_000));
    history.faults.push(server_fault(1, 99_000, 103_000, 104_000));
    request(&mut history, token, 0, 100_000, UNAVAILABLE);
    breaks(&history, Rule::CalmIsAvailable, &[0]);
}

#[test]
fn unavailable_is_right_until_all_was_seen_to_work() {
    for fault in [
        store_fault(90_000, 91_000, 100_000),
        store_fault(100_010, 101_000, 102_000),
        server_fault(0, 99_000, 99_500, 100_001),
        Fault { disturbs_all: true, ..server_fault(1, 99_000, 99_500, 100_001) },
        // It forgot, and was seen to accept tokens of second 101 and later.
        Fault { forgets: true, good_from: 101, ..store_fault(90_000, 91_000, 99_000) },
    ] {
        let mut history = history();
        let token = token(&mut history, 100);
        history.faults.push(fault);
        request(&mut history, token, 0, 100_000, UNAVAILABLE);
        holds(&history);
    }
}

#[test]
fn a_store_that_forgot_may_refuse_old_tokens_only() {
    let mut history = history();
    history.faults.push(Fault { forgets: true, good_from: 100, ..store_fault(90_000, 91_000, 99_000) });
    let token = token(&mut history, 100);
    request(&mut history, token, 0, 100_000, UNAVAILABLE);
    breaks(&history, Rule::CalmIsAvailable, &[0]);
}

#[test]
fn a_stall_of_this_machine_is_no_fault_of_the_service() {
    let mut history = history();
    history.stalls.push(Span { from: 99_000, to: 100_005 });
    let token = token(&mut history, 100);
    request(&mut history, token, 0, 100_000, UNAVAILABLE);
    holds(&history);
}

#[test]
fn few_may_find_their_store_slow() {
    let mut history = history();
    for number in 0..100 {
        let token = token(&mut history, 100);
        request(&mut history, token, 0, 100_000 + number, OK);
    }
    for number in 0..5 {
        history.requests[number].answer = UNAVAILABLE;
        history.requests[number].span.to += PATIENCE;
    }
    holds(&history);
    assert_eq!(Counts::of(&history).calm_slow, 5);
    history.requests[5].answer = UNAVAILABLE;
    history.requests[5].span.to += PATIENCE;
    breaks(&history, Rule::CalmIsAvailable, &[0, 1, 2, 3, 4, 5]);
}

#[test]
fn an_acceptance_without_a_store_is_found() {
    let mut history = history();
    history.faults.push(store_fault(99_899, 100_110, 101_000));
    let token = token(&mut history, 100);
    request(&mut history, token, 0, 100_000, OK);
    breaks(&history, Rule::NoStoreNoAccess, &[0]);
    history.faults[0].blackout = Some(Span { from: 100_000, to: 100_009 });
    holds(&history);
}

#[test]
fn no_answer_while_its_server_is_up_is_found() {
    let mut history = history();
    let token = token(&mut history, 100);
    history.faults.push(store_fault(99_000, 101_000, 102_000));
    history.faults.push(server_fault(1, 99_000, 101_000, 102_000));
    request(&mut history, token, 0, 100_000, Answer::Nothing);
    breaks(&history, Rule::Answered, &[0]);
    history.faults[1].place = Place::Server(0);
    holds(&history);
}

#[test]
fn other_answers_are_found() {
    for status in [204, 302, 400, 403, 404, 429, 500, 502, 504] {
        let mut history = history();
        history.faults.push(store_fault(99_000, 101_000, 102_000));
        history.faults.push(server_fault(0, 99_000, 101_000, 102_000));
        let token = token(&mut history, 100);
        request(&mut history, token, 0, 100_000, Answer::Status(status));
        breaks(&history, Rule::KnownAnswer, &[0]);
    }
}

#[test]
fn what_does_not_recover_is_found() {
    for (forgets, settled, is_right) in [
        (false, Some(131_000), true),
        (false, Some(131_001), false),
        (false, None, false),
        // The start rule may apply: 2 s and 5 s.
        (true, Some(138_000), true),
        (true, Some(138_001), false),
    ] {
        let mut history = history();
        history.faults.push(Fault { forgets, settled, ..store_fault(100_000, 101_000, 0) });
        if is_right {
            holds(&history);
        } else {
            let found = check(&history);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].rule, found[0].faults.as_slice()), (Rule::Recovers, [0].as_slice()));
        }
    }
}

/// What is mended first has to wait for the rest of its episode.
#[test]
fn an_episode_recovers_as_a_whole() {
    let mut history = history();
    history.faults.push(store_fault(100_000, 101_000, 160_000));
    history.faults.push(server_fault(0, 101_000, 130_000, 160_000));
    holds(&history);
    history.faults[1].episode = 1;
    let found = check(&history);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].rule, found[0].faults.as_slice()), (Rule::Recovers, [0].as_slice()));
}

#[test]
fn a_violation_is_shown_with_its_token_and_what_was_broken() {
    let mut history = history();
    history.faults.push(store_fault(99_000, 99_500, 99_900));
    history.faults.push(store_fault(10_000, 11_000, 12_000));
    let token = token(&mut history, 100);
    request(&mut history, token, 0, 100_000, OK);
    request(&mut history, token, 1, 100_020, REFUSED);
    request(&mut history, token, 1, 100_030, OK);
    let shown = check(&history)[0].in_context(&history).to_string();
    let times: Vec<_> = shown.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(times, ["Once:", "99000", "100000", "100020", "100030"], "{shown}");
}

#[test]
fn what_there_is_is_counted() {
    let mut history = history();
    history.faults.push(store_fault(99_000, 103_000, 103_500));
    history.faults.push(Fault { episode: 1, ..server_fault(1, 104_000, 104_100, 104_150) });
    let (early, used) = (token(&mut history, 110), token(&mut history, 103));
    request(&mut history, early, 0, 100_000, REFUSED);
    request(&mut history, used, 0, 102_000, UNAVAILABLE);
    request(&mut history, used, 0, 103_600, OK);
    request(&mut history, used, 1, 104_050, Answer::Nothing);
    history.requests[2].purpose = Purpose::Again;
    request(&mut history, used, 0, 104_000, REFUSED);
    let counts = Counts::of(&history);
    let told = (counts.tokens, counts.requests, counts.accepted, counts.refused, counts.unavailable);
    assert_eq!(told, (2, 5, 1, 2, 1));
    assert_eq!((counts.unanswered, counts.calm, counts.calm_first, counts.again), (1, 2, 1, 1));
    assert_eq!((counts.after_unknown, counts.outside, counts.in_blackout), (3, 1, 1));
    assert_eq!((counts.blackouts, counts.blackout_time), (1, 3_800 - PATIENCE));
    assert_eq!(counts.faults["killed"], 2);
    assert_eq!(counts.slowest_recovery["killed"], 500);
}

#[test]
fn what_this_machine_slept_and_a_server_waits_is_no_time_in_a_blackout() {
    let mut history = history();
    // 800 ms each.
    history.faults.push(store_fault(100_000, 101_000, 101_100));
    history.faults.push(store_fault(110_000, 111_000, 111_100));
    assert_eq!(Counts::of(&history).blackout_time, 2 * (800 - PATIENCE));
    history.stalls.push(Span { from: 99_000, to: 100_200 });
    history.stalls.push(Span { from: 100_800, to: 109_000 });
    assert_eq!(Counts::of(&history).blackout_time, 2 * (800 - PATIENCE) - 200);
    history.stalls.push(Span { from: 110_100, to: 110_800 });
    assert_eq!(Counts::of(&history).blackout_time, 800 - PATIENCE - 200);
}

/// Just enough of everything.
fn enough() -> Counts {
    Counts {
        faults: [("killed", 5)].into(),
        calm_first: 50,
        again: 100,
        outside: 20,
        accepted: 50,
        after_unknown: 20,
        blackouts: 2,
        blackout_time: 2_500,
        in_blackout: 10,
        unavailable: 10,
        ..Counts::default()
    }
}

#[test]
fn a_history_without_enough_of_something_lacks_it() {
    assert_eq!(enough().lacking(), None);
    for (counts, due) in [
        (Counts { faults: [("killed", 4)].into(), ..enough() }, "4 faults, not 5"),
        (Counts { calm_first: 49, ..enough() }, "49 first uses while all was up, not 50"),
        (Counts { again: 99, ..enough() }, "99 uses of used tokens, not 100"),
        (Counts { outside: 19, ..enough() }, "19 badly dated, not 20"),
        (Counts { accepted: 49, ..enough() }, "49 acceptances, not 50"),
        (Counts { after_unknown: 19, ..enough() }, "19 uses after an unknown outcome, not 20"),
        (Counts { in_blackout: 9, ..enough() }, "9 requests while no nonce could be stored, not 10"),
        (Counts { unavailable: 9, ..enough() }, "9 unavailable, not 10"),
    ] {
        assert_eq!(counts.lacking().as_deref(), Some(due));
    }
}

#[test]
fn a_blackout_is_looked_into_however_short_and_none_is_asked_for() {
    let short = Counts { blackouts: 1, blackout_time: 0, in_blackout: 1, unavailable: 1, ..enough() };
    assert_eq!(short.lacking(), None);
    assert!(Counts { in_blackout: 0, ..short.clone() }.lacking().is_some());
    assert!(Counts { unavailable: 0, ..short.clone() }.lacking().is_some());
    let none = Counts { blackouts: 0, in_blackout: 0, unavailable: 0, ..short };
    assert_eq!(none.lacking(), None);
}
