//! Connections: how they are taken, and when they end.

use std::{io, pin::pin, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

/// How long a connection may be silent before its other side is asked whether it is still there: the host of a
/// proxy that lost power closes none.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Before the next connection is taken where there is no room for one: no file, or no memory.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers requests until `stop` is ready, and finishes those that run then.
///
/// A connection on which no whole head of a request comes within `idle_timeout` is closed, as is one whose other side
/// takes nothing of an answer for that long. `axum::serve` sets no such limit, and hyper-util's server of both versions
/// of HTTP can set none on the bytes by which it tells them apart.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    idle_timeout: Duration,
    stop: impl Future<Output = ()>,
) {
    // Here, so that it is not done for each request.
    let router: Router = router.with_state(());
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    // It counts from the connection's start, and anew from each answer.
    http.timer(TokioTimer::new()).header_read_timeout(idle_timeout);
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let connection = tokio::select! {
            connection = accept(&listener) => connection,
            () = &mut stop => break,
        };
        end_when_gone(&connection, idle_timeout);
        let connection = http.serve_connection(TokioIo::new(connection), service.clone());
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection was broken off");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// The next connection, however long there is none.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => return connection,
            // It was given up before it was taken, which must not hold up the others.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken; trying again in a second");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether it says nothing of the next connection.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The kernel closes the connection when its other side has gone without a word, and, on Linux, when it takes none of
/// what is sent to it: hyper waits for that without a limit.
fn end_when_gone(connection: &TcpStream, idle_timeout: Duration) {
    let socket = SockRef::from(connection);
    let set = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    #[cfg(target_os = "linux")]
    let set = set.and_then(|()| socket.set_tcp_user_timeout(Some(idle_timeout)));
    #[cfg(not(target_os = "linux"))]
    let _ = idle_timeout;
    if let Err(error) = set {
        tracing::debug!(%error, "a connection has no limits by the kernel");
    }
}
