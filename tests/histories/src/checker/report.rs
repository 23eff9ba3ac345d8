//! The part of a history that a violation is about.

use std::{collections::BTreeMap, fmt};

use super::Violation;
use crate::history::{Fault, History, Purpose, Request, Span};

/// How much before and after is shown, in milliseconds.
const AROUND: i64 = 5_000;

pub(super) struct InContext<'a> {
    pub(super) violation: &'a Violation,
    pub(super) history: &'a History,
}

impl fmt::Display for InContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { violation, history } = self;
        writeln!(f, "{:?}:", violation.rule)?;
        let spans = violation.requests.iter().map(|number| history.requests[*number].span);
        let spans = spans.chain(violation.faults.iter().map(|number| history.faults[*number].span));
        let (from, to) =
            spans.fold((i64::MAX, i64::MIN), |(from, to), span| (from.min(span.from), to.max(span.to)));
        let around = Span { from: from - AROUND, to: to + AROUND };
        let mut lines: Vec<(i64, String)> = Vec::new();
        for (number, request) in history.requests.iter().enumerate() {
            let is_meant = violation.requests.contains(&number);
            let same_token =
                violation.requests.iter().any(|other| history.requests[*other].token == request.token);
            if is_meant || same_token {
                let token = &history.tokens[request.token];
                let clock = history.clock_of(request.server, request.span);
                let line = format!(
                    "{} request {number} {:?} of token {} ({} {}) to server {}, whose clock is {} to {}: {:?} after {} ms",
                    if is_meant { ">" } else { " " },
                    request.purpose,
                    request.token,
                    token.username,
                    token.time,
                    request.server,
                    clock.from,
                    clock.to,
                    request.answer,
                    request.span.to - request.span.from,
                );
                lines.push((request.span.from, line));
            }
        }
        let is_near = |fault: &&Fault| {
            let until = fault.settled.unwrap_or(i64::MAX);
            Span { from: fault.span.from, to: until }.overlaps(around)
        };
        for fault in history.faults.iter().filter(is_near) {
            let Fault { kind, place, span, blackout, settled, good_from, .. } = fault;
            let line = format!(
                "  fault: {kind} at {place:?} until {}, no nonce stored {blackout:?}, settled {settled:?}, tokens good from {good_from}",
                span.to
            );
            lines.push((span.from, line));
        }
        // What the probes of a recovery were answered with, second by second.
        let mut probes: BTreeMap<(i64, usize, String), usize> = BTreeMap::new();
        let is_probe = |request: &&Request| {
            !violation.faults.is_empty() && request.purpose == Purpose::Probe && request.span.from >= to
        };
        let settled = violation.faults.iter().filter_map(|number| history.faults[*number].settled).max();
        for request in history.requests.iter().filter(is_probe) {
            if settled.is_none_or(|settled| request.span.from <= settled) {
                let second = request.span.from.div_euclid(1000) * 1000;
                *probes.entry((second, request.server, format!("{:?}", request.answer))).or_default() += 1;
            }
        }
        for ((second, server, answer), count) in probes {
            lines.push((second, format!("  {count} probes of server {server}: {answer}")));
        }
        for set in history.clocks.iter().filter(|set| set.span.overlaps(around)) {
            lines.push((
                set.span.from,
                format!("  clock of server {} set {} ms ahead", set.server, set.ahead),
            ));
        }
        for start in history.starts.iter().filter(|start| start.span.overlaps(around)) {
            lines.push((
                start.span.from,
                format!("  server {} starts, ready {}", start.server, start.span.to),
            ));
        }
        for stall in history.stalls.iter().filter(|stall| stall.overlaps(around)) {
            lines.push((stall.from, format!("  this machine stalls until {}", stall.to)));
        }
        lines.sort();
        lines.iter().try_for_each(|(at, line)| writeln!(f, "{at} {line}"))
    }
}
