//! The lives of tokens: sent for the first time, at once to several servers, and again.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use futures_util::future::join_all;
use tokio::task::{JoinHandle, JoinSet};

use super::Driver;
use crate::{
    history::{Answer, Purpose, TokenId},
    recorder::now,
};

/// Between the beginnings of two tokens' lives: up to this.
const BETWEEN: u64 = 80;

/// New tokens, until it is told to end.
pub(super) struct Lives {
    driver: Arc<Driver>,
    generator: JoinHandle<()>,
}

impl Lives {
    pub(super) fn begin(driver: &Arc<Driver>, rng: Rng) -> Self {
        Self { driver: Arc::clone(driver), generator: tokio::spawn(generate(Arc::clone(driver), rng)) }
    }

    /// Ends when all that was sent is answered.
    pub(super) async fn end(self) {
        self.driver.stop.send_replace(true);
        self.generator.await.expect("no panic");
    }
}

async fn generate(driver: Arc<Driver>, mut rng: Rng) {
    let mut lives = JoinSet::new();
    let stop = driver.stop.subscribe();
    while !*stop.borrow() {
        let life = Life { driver: Arc::clone(&driver), rng: rng.fork() };
        lives.spawn(life.run());
        while let Some(ended) = lives.try_join_next() {
            ended.expect("no panic");
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(1..BETWEEN))).await;
    }
    lives.join_all().await;
}

struct Life {
    driver: Arc<Driver>,
    rng: Rng,
}

impl Life {
    async fn run(mut self) {
        let server = self.server();
        let token = self.new_token(server);
        let driver = Arc::clone(&self.driver);
        let number = driver.new_token(token.clone());
        let mut first = vec![driver.send(number, server, 0, Purpose::First)];
        if self.rng.bool() {
            for _ in 0..self.rng.u8(1..4) {
                first.push(driver.send(number, self.server(), self.key(), Purpose::Again));
            }
        }
        // What has the name or the date alone of another is not the same token.
        if self.rng.u8(..20) == 0 {
            let mut other = token.clone();
            if self.rng.bool() {
                let user =
                    (0..driver.callers.count()).find(|user| driver.callers.username(*user) != token.username);
                driver.callers.username(user.expect("another")).clone_into(&mut other.username);
            } else {
                other.time += 1;
            }
            first.push(driver.send(driver.new_token(other), server, 0, Purpose::First));
        }
        let answers = join_all(first).await;
        // What came of it is not known: whether the nonce was stored is what matters now.
        let is_unknown = answers.iter().any(|answer| !matches!(answer, Answer::Status(200 | 401)));
        let again = if is_unknown { 3 } else { self.rng.u8(0..3) };
        let again: Vec<_> = (0..again)
            .map(|_| {
                let (server, key) = (self.server(), self.key());
                let at = self.moment(token.time, server);
                let driver = Arc::clone(&driver);
                async move {
                    let mut stop = driver.stop.subscribe();
                    let wait = Duration::from_millis(u64::try_from(at - now()).unwrap_or_default());
                    let stopped = tokio::time::timeout(wait, stop.wait_for(|stop| *stop)).await.is_ok();
                    if !stopped {
                        driver.send(number, server, key, Purpose::Again).await;
                    }
                }
            })
            .collect();
        join_all(again).await;
    }

    /// Dated by this server's clock: mostly now, sometimes elsewhere in the window, or out of it.
    fn new_token(&mut self, server: usize) -> TokenId {
        let (tolerance, rng) = (self.driver.tolerance, &mut self.rng);
        let ahead = match rng.u8(..10) {
            0 => -tolerance - rng.i64(2..6),
            1 => tolerance + rng.i64(2..4),
            2 | 3 => rng.i64(1 - tolerance..tolerance),
            _ => 0,
        };
        let time = self.driver.clock_of(server).div_euclid(1000) + ahead;
        let username = self.driver.callers.username(rng.usize(..self.driver.callers.count())).to_owned();
        TokenId { username, time, nonce: format!("{:032x}", rng.u128(..)) }
    }

    /// A moment from now on in which this server finds the date in its window, or one soon after it.
    fn moment(&mut self, time: i64, server: usize) -> i64 {
        let (tolerance, ahead) = (self.driver.tolerance * 1000, self.driver.gateways[server].ahead());
        let open = (time * 1000 - tolerance - ahead).max(now());
        let late = if self.rng.u8(..5) == 0 { 2_000 } else { 0 };
        let close = time * 1000 + tolerance - ahead + late;
        if close > open { self.rng.i64(open..=close) } else { now() }
    }

    fn server(&mut self) -> usize {
        self.rng.usize(..self.driver.gateways.len())
    }

    fn key(&mut self) -> usize {
        usize::from(self.rng.u8(..5) == 0)
    }
}
