use std::{
    cell::RefCell,
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, LazyLock, Mutex},
};

use ajwt_jwks::{AddressPolicy, FetchError, HostResolver, JwksClient, Validators};
use async_trait::async_trait;
use tokio::runtime::Runtime;
use url::{Host, Url};

use crate::script::Script;

/// What the next host is at; empty once that was asked.
static ADDRESSES: Mutex<Vec<IpAddr>> = Mutex::new(Vec::new());

static CLIENT: LazyLock<JwksClient> =
    LazyLock::new(|| JwksClient::builder().resolver(Arc::new(Told)).build().expect("a client"));

#[derive(Debug)]
struct Told;

#[async_trait]
impl HostResolver for Told {
    async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(mem::take(&mut ADDRESSES.lock().expect("a lock")))
    }
}

/// A URL of a key set and the addresses of its host: nothing is fetched but over https, and from nowhere
/// but public addresses, as a second list of those has it.
pub fn url_policy(data: &[u8]) {
    let mut script = Script::new(data);
    let addresses: Vec<IpAddr> = (0..1 + script.below(3)).map(|_| address(&mut script)).collect();
    let policy = AddressPolicy::public();
    for address in &addresses {
        assert_eq!(policy.allows(*address), is_public(*address), "{address}");
    }

    let Ok(url) = std::str::from_utf8(script.rest()) else { return };
    if let Err(error) = CLIENT.check_url(url) {
        return crate::check_error(&error);
    }
    let scheme = url.trim_matches(|c: char| c <= ' ').replace(['\t', '\r', '\n'], "");
    assert!(scheme.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")), "{url:?}");
    if let Some(address) = host(url).and_then(literal) {
        assert!(is_public(address), "{url:?} is at {address}");
        return;
    }
    let is_name = Url::parse(url).is_ok_and(|url| matches!(url.host(), Some(Host::Domain(_))));
    // A public address in the URL would be connected to.
    if is_name && !addresses.iter().all(|address| is_public(*address)) {
        look_up(url, addresses);
    }
}

/// One address that is not public, and nothing is connected to.
fn look_up(url: &str, addresses: Vec<IpAddr>) {
    thread_local!(static RUNTIME: RefCell<Runtime> = tokio::runtime::Builder::new_current_thread()
        .enable_all().build().expect("a runtime").into());

    *ADDRESSES.lock().expect("a lock") = addresses;
    let fetched = RUNTIME.with_borrow(|runtime| runtime.block_on(CLIENT.fetch(url, &Validators::default())));
    let was_asked = ADDRESSES.lock().expect("a lock").is_empty();
    match fetched {
        Err(FetchError::Address { address, .. }) => assert!(!is_public(address), "{url:?} is at {address}"),
        // A name that TLS cannot have is not even looked up.
        Err(FetchError::Connect { .. } | FetchError::Http { .. }) if !was_asked => {}
        other => panic!("{url:?}: {other:?}"),
    }
}

fn address(script: &mut Script<'_>) -> IpAddr {
    match script.byte() % 5 {
        0 => Ipv4Addr::from(script.array::<4>()).into(),
        1 => Ipv4Addr::from(script.array::<4>()).to_ipv6_mapped().into(),
        2 => Ipv4Addr::from(script.array::<4>()).to_ipv6_compatible().into(),
        3 => Ipv6Addr::from(script.array::<16>()).into(),
        _ => {
            let [a, b, c, d] = script.array::<4>();
            Ipv6Addr::from([0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]).into()
        }
    }
}

/// The host of a URL of the usual spelling (RFC 3986 section 3.2).
fn host(url: &str) -> Option<&str> {
    let is_usual = |byte: u8| byte.is_ascii_graphic() && byte != b'\\' && byte != b'%';
    if !url.bytes().all(is_usual) || !url.get(..8)?.eq_ignore_ascii_case("https://") {
        return None;
    }
    let authority = url[8..].split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let end = if host.starts_with('[') { host.find(']').map(|end| end + 1) } else { host.find(':') };
    Some(&host[..end.unwrap_or(host.len())]).filter(|host| !host.is_empty())
}

/// The address that a host spells, in any way that an operating system reads.
fn literal(host: &str) -> Option<IpAddr> {
    if let Some(v6) = host.strip_prefix('[') {
        return v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let parts: Vec<&str> = host.strip_suffix('.').unwrap_or(host).split('.').collect();
    let numbers = parts.iter().map(|part| number(part)).collect::<Option<Vec<u64>>>()?;
    let (last, leading) = numbers.split_last()?;
    if leading.len() > 3 || leading.iter().any(|number| *number > 255) {
        return None;
    }
    let high = leading.iter().zip([24, 16, 8]).map(|(number, shift)| number << shift).sum::<u64>();
    let free = 32 - 8 * leading.len();
    (*last < 1 << free).then(|| Ipv4Addr::from((high + last) as u32).into())
}

/// As `inet_aton` reads it: decimal, octal after a 0, hexadecimal after 0x.
fn number(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    if !lower.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'x') {
        return None;
    }
    match lower.strip_prefix("0x") {
        Some("") => Some(0),
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if lower.starts_with('0') => u64::from_str_radix(&lower, 8).ok(),
        None => lower.parse().ok(),
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_public_v4(address),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = address.is_unspecified()
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation();
    let also = matches!(
        address.octets(),
        [0, ..]
            | [100, 64..=127, ..]
            | [168, 63, 129, 16]
            | [192, 0, 0, _]
            | [192, 88, 99, _]
            | [198, 18..=19, ..]
            | [240..=255, ..]
    );
    !special && !also
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // What NAT64 translates.
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() {
        return is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    }
    let special = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local();
    let global = matches!(address.segments(), [0x2000..=0x3fff, ..]);
    let also = matches!(
        address.segments(),
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..]
    );
    global && !special && !also
}
