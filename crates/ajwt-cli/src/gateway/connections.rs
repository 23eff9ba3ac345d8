//! Connections: how they are taken, and when they end.

use std::{pin::pin, time::Duration};

use axum::{Router, serve::Listener};
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

/// Answers requests until `stop` is ready, and finishes those that run then.
///
/// A connection on which no whole head of a request comes within `idle_timeout` is closed. `axum::serve` sets no such
/// limit, and hyper-util's server of both versions of HTTP can set none on the bytes by which it tells them apart.
pub(super) async fn serve(
    mut listener: TcpListener,
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
        let (connection, _) = tokio::select! {
            // axum's, which waits where the process may open no more files.
            accepted = Listener::accept(&mut listener) => accepted,
            () = &mut stop => break,
        };
        keep_alive(&connection);
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

/// The kernel closes the connection when its other side has gone without a word.
fn keep_alive(connection: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    if let Err(error) = SockRef::from(connection).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "a connection has no keepalive");
    }
}
