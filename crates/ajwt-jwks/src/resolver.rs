use std::{
    fmt::Debug,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;

use crate::AddressPolicy;

/// Finds the addresses of a host. What it finds is held against the [`AddressPolicy`], and only that
/// is connected to.
///
/// ```
/// use std::{io, net::IpAddr};
/// use ajwt_jwks::HostResolver;
/// use async_trait::async_trait;
///
/// /// One host, which is always at one place.
/// #[derive(Debug)]
/// struct Pinned(&'static str, IpAddr);
///
/// #[async_trait]
/// impl HostResolver for Pinned {
///     async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
///         Ok(if host == self.0 { vec![self.1] } else { Vec::new() })
///     }
/// }
/// ```
#[async_trait]
pub trait HostResolver: Debug + Send + Sync + 'static {
    /// The addresses of a host, at best in the order in which they shall be tried: of each family the first four are.
    /// None: there is no such host.
    ///
    /// # Errors
    /// Whatever kept it from finding out.
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl HostResolver for SystemResolver {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Addresses of a family that are tried, the first ones.
const MAX_ADDRESSES: usize = 4;

/// What the HTTP client resolves hosts by: there is no look-up between the check and the connection.
pub(crate) struct CheckedResolver {
    pub(crate) resolver: Arc<dyn HostResolver>,
    pub(crate) policy: Arc<AddressPolicy>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, policy) = (Arc::clone(&self.resolver), Arc::clone(&self.policy));
        Box::pin(async move {
            let host = name.as_str();
            let unresolved = |cause| Unresolved { host: host.into(), cause };
            let mut found = resolver.addresses(host).await.map_err(|error| unresolved(Some(error)))?;
            if found.is_empty() {
                return Err(unresolved(None).into());
            }
            // One bad address spoils the answer: who mixes them is up to something, or is not what
            // the administrator took it for.
            if let Some(refused) = found.iter().find(|address| !policy.allows(**address)) {
                return Err(Refused { host: host.into(), address: *refused }.into());
            }
            // The time for connecting is divided among those of a family: to many it would be too short for each.
            let (mut v4, mut v6) = (0, 0);
            found.retain(|address| {
                let count = if address.is_ipv6() { &mut v6 } else { &mut v4 };
                *count += 1;
                *count <= MAX_ADDRESSES
            });
            // The port is the URL's.
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// An address that the policy does not allow.
#[derive(Debug, Error)]
#[error("{address} of {host} is refused")]
pub(crate) struct Refused {
    pub(crate) host: Box<str>,
    pub(crate) address: IpAddr,
}

/// A host without an address, or where that could not be found out.
#[derive(Debug, Error)]
#[error("{host} is not resolved")]
pub(crate) struct Unresolved {
    pub(crate) host: Box<str>,
    pub(crate) cause: Option<io::Error>,
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// A host with more addresses than there is time to try.
    #[derive(Debug)]
    struct Many;

    #[async_trait]
    impl HostResolver for Many {
        async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            let of = |number| [IpAddr::V4(Ipv4Addr::new(8, 8, 8, number)), v6(number)];
            Ok((1..9).flat_map(of).collect())
        }
    }

    fn v6(number: u8) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, number.into()))
    }

    #[tokio::test]
    async fn the_first_four_addresses_of_each_family_are_tried() {
        let checked = CheckedResolver { resolver: Arc::new(Many), policy: Arc::default() };
        let found = checked.resolve("many.example".parse().expect("a name")).await.expect("found");
        let found: Vec<_> = found.map(|address| address.ip()).collect();
        let (v6s, v4s): (Vec<_>, Vec<_>) = found.into_iter().partition(IpAddr::is_ipv6);
        assert_eq!(v4s, [1, 2, 3, 4].map(|number| IpAddr::V4(Ipv4Addr::new(8, 8, 8, number))));
        assert_eq!(v6s, [1, 2, 3, 4].map(v6));
    }
}
