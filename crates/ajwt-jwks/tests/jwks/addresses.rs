//! Which addresses are connected to: the listeners count.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
#[cfg(target_os = "linux")]
use std::{net::SocketAddr, time::Duration};

use ajwt_jwks::{AddressPolicy, FetchError, HostResolver, JwksClient, JwksClientBuilder};
use async_trait::async_trait;
use tokio::net::TcpListener;
#[cfg(target_os = "linux")]
use tokio::time::timeout;

use crate::{
    PATIENT, fetch, key, keys, refused,
    server::{Server, Transport, ok, set_of},
};

/// Answers as DNS would, one answer after the other and the last one for good. None is an error.
#[derive(Debug)]
struct Dns {
    answers: Vec<Option<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Dns {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let addresses = |texts: &&[&str]| {
            let parse = |text: &&str| text.parse().ok();
            texts.iter().map(parse).collect::<Option<Vec<_>>>()
        };
        Arc::new(Self { answers: answers.iter().map(addresses).collect(), asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl HostResolver for Dns {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        assert_eq!(host, "keys.example");
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.get(asked).or(self.answers.last()).cloned().flatten();
        answer.ok_or_else(|| io::Error::other("no DNS today"))
    }
}

/// Everything but the policy would let it connect to the servers of these tests.
fn strict() -> JwksClientBuilder {
    JwksClient::builder().insecure_allow_http().deadline(PATIENT)
}

fn listening_on(listener: TcpListener) -> Server {
    let set = set_of(&key());
    Server::on(listener, Transport::Plain, move |_| vec![crate::server::Step::Send(ok(&set))])
}

async fn listening_at(address: &str) -> Server {
    listening_on(TcpListener::bind(address).await.expect("a port"))
}

/// One of each address, on the same port.
async fn listening_at_both(hosts: [&str; 2]) -> [Server; 2] {
    for _ in 0..100 {
        let first = TcpListener::bind((hosts[0], 0)).await.expect("a port");
        let port = first.local_addr().expect("an address").port();
        // There it may be somebody else's.
        if let Ok(second) = TcpListener::bind((hosts[1], port)).await {
            return [first, second].map(listening_on);
        }
    }
    panic!("no port is free on both of {hosts:?}");
}

#[tokio::test]
async fn addresses_that_are_not_public_are_never_connected_to() {
    // Where the machine has no IPv6, nothing can be connected to by it.
    let servers: Vec<Server> = match TcpListener::bind("[::1]:0").await {
        Ok(_) => listening_at_both(["0.0.0.0", "::1"]).await.into(),
        Err(_) => vec![listening_at("0.0.0.0:0").await],
    };
    let port = servers[0].address.port();
    let client = strict().build().expect("a client");
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "%31%32%37.0.0.1",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "127.0.0.1.",
        "localhost",
        "LOCALHOST",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "0xa9fea9fe",
        "172.16.0.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[ff02::1]",
    ] {
        for scheme in ["http", "https"] {
            let result = fetch(&client, &format!("{scheme}://{host}:{port}/jwks.json")).await;
            let is_refused = result.as_ref().err().map(FetchError::label) == Some("address");
            assert!(is_refused, "{scheme}://{host}: {result:?}");
        }
    }
    assert_eq!(servers.iter().map(Server::connections).sum::<usize>(), 0);
}

#[tokio::test]
async fn urls_that_are_not_fetched_are_told_before_any_connection() {
    let server = listening_at("127.0.0.1:0").await;
    let at = server.address;
    let allowing = AddressPolicy::public().allow_network("127.0.0.0/8").expect("a network");
    let client = strict().address_policy(allowing.clone()).build().expect("a client");
    for url in [
        format!("http://me@{at}/"),
        format!("http://me:secret@{at}/"),
        format!("http://:secret@{at}/"),
        format!("ftp://{at}/"),
        format!("file://{at}/"),
        "file:///etc/passwd".into(),
        format!("ws://{at}/"),
        format!("//{at}/"),
        "jwks.json".into(),
        "http://".into(),
        "http://a b/".into(),
        String::new(),
    ] {
        let told = refused(fetch(&client, &url).await, &url, "url");
        assert!(!told.contains("secret"), "{told}");
    }
    let client = JwksClient::builder().address_policy(allowing).build().expect("a client");
    let told = refused(fetch(&client, &server.url()).await, "http", "url");
    assert!(told.contains("https"), "{told}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn what_dns_answers_is_what_is_connected_to() {
    let [allowed, other] = listening_at_both(["127.0.0.2", "127.0.0.1"]).await;
    let port = allowed.address.port();
    let policy = AddressPolicy::public().allow_network("127.0.0.2/32").expect("a network");
    // First an address that is allowed, then one that is not: as many look-ups as fetches.
    let dns = Dns::new(&[&["127.0.0.2"], &["127.0.0.1"], &["127.0.0.2"]]);
    let client = strict().address_policy(policy.clone()).resolver(dns.clone()).build().expect("a client");
    let url = format!("http://keys.example:{port}/jwks.json");
    assert_eq!(keys(fetch(&client, &url).await).len(), 1);
    let told = refused(fetch(&client, &url).await, "another address", "address");
    assert!(told.contains("127.0.0.1") && told.contains("keys.example"), "{told}");
    assert_eq!(keys(fetch(&client, &url).await).len(), 1);
    assert_eq!(dns.asked.load(Ordering::SeqCst), 3);
    assert!(allowed.heads().iter().all(|head| head.contains(&format!("host: keys.example:{port}\r\n"))));

    // Both in one answer, in whatever order and spelling.
    for answer in [
        ["127.0.0.2", "127.0.0.1"],
        ["127.0.0.1", "127.0.0.2"],
        ["127.0.0.2", "::ffff:127.0.0.1"],
        ["127.0.0.2", "::1"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.2", "64:ff9b::7f00:1"],
    ] {
        let dns = Dns::new(&[&answer]);
        let client = strict().address_policy(policy.clone()).resolver(dns).build().expect("a client");
        refused(fetch(&client, &url).await, &answer.join(" and "), "address");
    }
    assert_eq!((allowed.connections(), other.connections()), (2, 0));
}

/// A server, and at another address a listener on the same port that drops what comes: its queue is full, and
/// nobody accepts. Elsewhere than on Linux a full queue may refuse.
#[cfg(target_os = "linux")]
async fn listening_and_dropping(hosts: [&str; 2]) -> (Server, TcpListener, Vec<tokio::net::TcpStream>) {
    const SHORT: Duration = Duration::from_millis(500);

    for _ in 0..100 {
        let listener = TcpListener::bind((hosts[0], 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let address = SocketAddr::new(hosts[1].parse().expect("an address"), port);
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        // There it may be somebody else's.
        if socket.bind(address).is_err() {
            continue;
        }
        let dropping = socket.listen(0).expect("it listens");
        let mut queue = Vec::new();
        while let Ok(connected) = timeout(SHORT, tokio::net::TcpStream::connect(address)).await {
            queue.push(connected.expect("a connection"));
        }
        return (listening_on(listener), dropping, queue);
    }
    panic!("no port is free on both of {hosts:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_drops_what_comes_leaves_time_for_the_next() {
    let (server, _dropping, _queue) = listening_and_dropping(["127.0.0.1", "127.0.0.2"]).await;
    let policy = AddressPolicy::public().allow_network("127.0.0.0/8").expect("a network");
    let dns = Dns::new(&[&["127.0.0.2", "127.0.0.1"]]);
    let client = strict().address_policy(policy).resolver(dns).deadline(Duration::from_secs(10));
    let client = client.build().expect("a client");
    let url = format!("http://keys.example:{}/jwks.json", server.address.port());
    assert_eq!(keys(fetch(&client, &url).await).len(), 1);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_host_without_an_address_is_told() {
    for answers in [&[] as &[&str], &["this is an error"]] {
        let client = strict().resolver(Dns::new(&[answers])).build().expect("a client");
        let told = refused(fetch(&client, "https://keys.example/").await, "no address", "resolve");
        assert!(told.contains("keys.example"), "{told}");
        assert_eq!(told.contains("no DNS today"), !answers.is_empty(), "{told}");
    }
}

/// Never answers.
#[derive(Debug)]
struct SlowDns;

#[async_trait]
impl HostResolver for SlowDns {
    async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn slow_dns_ends_at_the_deadline() {
    let client = JwksClient::builder().resolver(Arc::new(SlowDns)).build().expect("a client");
    let started = tokio::time::Instant::now();
    refused(fetch(&client, "https://keys.example/").await, "slow DNS", "timeout");
    assert_eq!(started.elapsed(), client.deadline());
}
