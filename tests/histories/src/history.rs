//! What is recorded. All times are milliseconds since the Unix epoch by the clock of this machine.

/// From one moment to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first moment.
    pub from: i64,
    /// The last one.
    pub to: i64,
}

impl Span {
    /// Whether they have a moment in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    /// Whether all of the other is in it.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.from <= other.from && other.to <= self.to
    }
}

/// What a nonce store tells tokens apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenId {
    /// Whose it is.
    pub username: String,
    /// Its date, in seconds.
    pub time: i64,
    /// Its nonce.
    pub nonce: String,
}

/// Why a token was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// For the first time, alone or several times at once.
    First,
    /// Once more, at once or later, perhaps signed by another key of the user.
    Again,
    /// To see whether a server works again.
    Probe,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP status.
    Status(u16),
    /// Nothing: the connection was refused or broke.
    Nothing,
}

/// A request, from before it was sent until its answer was there.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// An index of [`History::tokens`].
    pub token: usize,
    /// The number of the server.
    pub server: usize,
    /// Why it was sent.
    pub purpose: Purpose,
    /// When.
    pub span: Span,
    /// What came back.
    pub answer: Answer,
}

/// What a fault was done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The store.
    Store,
    /// A server.
    Server(usize),
}

/// Something that was broken, and mended.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What was done.
    pub kind: &'static str,
    /// To what.
    pub place: Place,
    /// Whether all servers are disturbed by it.
    pub disturbs_all: bool,
    /// From before it began until after it was mended.
    pub span: Span,
    /// While no nonce can be stored: from after it began until before it was mended.
    pub blackout: Option<Span>,
    /// Whether what was stored may be lost by it, or is taken to be.
    pub forgets: bool,
    /// Faults of one number are settled together.
    pub episode: usize,
    /// When all servers were seen to work again. `None`: never.
    pub settled: Option<i64>,
    /// Tokens of this date, in seconds, and later ones were seen to be accepted then.
    pub good_from: i64,
}

/// A server's clock was set.
#[derive(Clone, Copy, Debug)]
pub struct ClockSet {
    /// The number of the server.
    pub server: usize,
    /// From before it was set until it was in force.
    pub span: Span,
    /// How far it is ahead of this machine's since then, in milliseconds.
    pub ahead: i64,
}

/// A server was started whose own memory is the store.
#[derive(Clone, Copy, Debug)]
pub struct MemoryStart {
    /// The number of the server.
    pub server: usize,
    /// From before it was started until it answered.
    pub span: Span,
}

/// How tokens may be lost to memory when a server of [`MemoryStart`] starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// No token works twice, whatever happens.
    Once,
    /// As `StartRule::DatedBeforeStart`: a token that is not dated before the second of a start may
    /// work once more after it.
    OncePerStart,
}

/// All that happened.
#[derive(Clone, Debug)]
pub struct History {
    /// How far a token's date may lie from a server's clock, in milliseconds.
    pub tolerance: i64,
    /// After how many milliseconds a server gives up on its store.
    pub patience: i64,
    /// What the store promises.
    pub promise: Promise,
    /// What was sent.
    pub tokens: Vec<TokenId>,
    /// How it was answered.
    pub requests: Vec<Request>,
    /// What was broken.
    pub faults: Vec<Fault>,
    /// The servers' clocks.
    pub clocks: Vec<ClockSet>,
    /// The servers' starts, where their memory is the store.
    pub starts: Vec<MemoryStart>,
    /// While this machine ran nothing, or too little.
    pub stalls: Vec<Span>,
}

impl History {
    /// With nothing in it.
    #[must_use]
    pub const fn new(tolerance: i64, patience: i64, promise: Promise) -> Self {
        Self {
            tolerance,
            patience,
            promise,
            tokens: Vec::new(),
            requests: Vec::new(),
            faults: Vec::new(),
            clocks: Vec::new(),
            starts: Vec::new(),
            stalls: Vec::new(),
        }
    }

    /// What a server's clock may have shown during a span.
    #[must_use]
    pub fn clock_of(&self, server: usize, span: Span) -> Span {
        let settings: Vec<_> = self.clocks.iter().filter(|set| set.server == server).collect();
        let in_force = settings.iter().enumerate().filter(|(number, set)| {
            let replaced = settings.get(number + 1).is_some_and(|next| next.span.to < span.from);
            set.span.from <= span.to && !replaced
        });
        let aheads: Vec<_> = in_force.map(|(_, set)| set.ahead).collect();
        let lowest = aheads.iter().min().copied().unwrap_or_default();
        let highest = aheads.iter().max().copied().unwrap_or_default();
        Span { from: span.from + lowest, to: span.to + highest }
    }
}
