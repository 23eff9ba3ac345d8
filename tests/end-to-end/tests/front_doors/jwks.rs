//! The keys that each door publishes, outside of its guard: the same bytes from all, on real sockets.

use std::net::SocketAddr;

use ajwt_axum::JwksService;
use ajwt_core::JwkSet;
use ajwt_server::testing::TestSigner;

use crate::{
    doors::{self, Mode, PUBLISHED, three},
    parity::ask_all,
    wire::{Response, request},
};

/// Asks without a token; the common answer.
async fn ask(doors: [SocketAddr; 3], method: &str, if_none_match: &[&str]) -> Response {
    let lines: Vec<_> =
        if_none_match.iter().map(|tags| format!("If-None-Match: {tags}").into_bytes()).collect();
    ask_all(doors, &request(method, JwksService::PATH, &lines)).await.expect("one answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_set_gets_one_answer_at_every_door() {
    let signer = TestSigner::new("guido");
    let doors = doors::open(three(|| signer.authenticator()), Mode::Required, false).await;

    let get = ask(doors, "GET", &[]).await;
    assert_eq!(get.status, 200, "{get:?}");
    assert_eq!(get.header("content-type"), Some("application/jwk-set+json"));
    assert_eq!(get.header("cache-control"), Some("public, max-age=300"));
    let set = JwkSet::from_json(&get.body).expect("a key set");
    let served: Vec<_> = set.keys().iter().map(|jwk| jwk.key().clone()).collect();
    assert_eq!(served, *PUBLISHED);

    let head = ask(doors, "HEAD", &[]).await;
    assert_eq!((head.status, &head.headers), (200, &get.headers));
    assert_eq!(head.header("content-length"), Some(&*get.body.len().to_string()));

    let etag = get.header("etag").expect("an entity tag");
    let weak = format!("\"other\", W/{etag}");
    for known in [&[etag][..], &[&*weak], &["*"], &["\"other\"", etag]] {
        let answer = ask(doors, "GET", known).await;
        assert_eq!((answer.status, answer.text()), (304, ""), "{known:?}: {answer:?}");
        for name in ["etag", "cache-control"] {
            assert_eq!(answer.header(name), get.header(name), "{known:?}: {answer:?}");
        }
    }
    assert_eq!(ask(doors, "GET", &["\"other\"", "W/\"another\""]).await, get);

    let post = ask(doors, "POST", &["*"]).await;
    assert_eq!((post.status, post.text(), post.header("allow")), (405, "", Some("GET, HEAD")));
}
