//! A history of each store. See the package's documentation.

use ajwt_histories::{
    checker::{Counts, Rule, check},
    driver::{Plan, kinds, run},
    history::History,
    store::Store,
    stores::{Cluster, FailingOver, Memory, MemoryOfEach, Redis, Sql, Sqlite},
};
use ajwt_test_servers::sql::Kind;

/// Violations that are shown in full.
const SHOWN: usize = 5;

async fn holds(store: &mut dyn Store, plan: Plan) {
    let history = told(store, plan).await;
    let (counts, violations) = (Counts::of(&history), check(&history));
    let shown = violations.iter().take(SHOWN).map(|violation| violation.in_context(&history).to_string());
    let shown: String = shown.collect();
    assert!(violations.is_empty(), "seed {}: {} violations:\n{shown}", plan.seed, violations.len());

    for kind in kinds(store, &plan) {
        assert!(counts.faults.contains_key(kind), "seed {}: no fault of the kind {kind:?}", plan.seed);
    }
    if let Some(lacking) = counts.lacking() {
        panic!("seed {}: {lacking}", plan.seed);
    }
}

#[allow(clippy::print_stdout, reason = "a seed repeats a run, and counts tell what was checked")]
async fn told(store: &mut dyn Store, plan: Plan) -> History {
    println!("AJWT_HISTORY_SEED={}", plan.seed);
    let history = run(store, &plan).await;
    println!("{}", Counts::of(&history));
    history
}

/// With clocks far apart, where there is time for tokens to be used at either end.
fn wide_clocks(plan: Plan) -> bool {
    plan.length.is_some() && plan.seed % 2 == 1
}

/// In a long history its disk is filled up, too, which only root can prepare.
async fn sql(kind: Kind, plan: Plan) -> Sql {
    Sql::start(kind, wide_clocks(plan), plan.length.is_some()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    holds(&mut Memory { strict_start: false }, Plan::of_environment()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_with_a_strict_start() {
    holds(&mut Memory { strict_start: true }, Plan::of_environment()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let plan = Plan::of_environment();
    holds(&mut Sqlite::new(wide_clocks(plan)), plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    let plan = Plan::of_environment();
    holds(&mut sql(Kind::Postgres, plan).await, plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql() {
    let plan = Plan::of_environment();
    holds(&mut sql(Kind::MySql, plan).await, plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    let plan = Plan::of_environment();
    // With each of the clocks.
    let append_only = plan.seed / 2 % 2 == 1;
    holds(&mut Redis::start(wide_clocks(plan), append_only), plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cluster() {
    let plan = Plan::of_environment();
    holds(&mut Cluster::start(wide_clocks(plan)), plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cluster_failing_over() {
    holds(&mut FailingOver::start(), Plan::of_environment()).await;
}

/// The same driver and checker find a store that lets tokens through twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_each_server_is_found_out() {
    let plan = Plan { length: None, ..Plan::of_environment() };
    let history = told(&mut MemoryOfEach, plan).await;
    let found = check(&history).iter().filter(|violation| violation.rule == Rule::Once).count();
    assert!(found >= 10, "seed {}: {found} tokens are known to have worked twice", plan.seed);
}
