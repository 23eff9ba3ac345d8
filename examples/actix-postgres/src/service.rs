use std::{error::Error, sync::Arc};

use actix_web::{App, HttpServer, web};
use ajwt_actix::{AuthMiddleware, Authenticated};
use ajwt_server::{Authenticator, CachedUserRepository, User, UserCacheOptions, problem_details};
use ajwt_sqlx::{PostgresNonceBackend, PostgresRepository};

/// Serves until the program is interrupted or terminated: actix-web listens to the signals itself.
pub(crate) async fn serve(database_url: &str, address: &str) -> Result<(), Box<dyn Error>> {
    let authenticator = authenticator(database_url).await?;
    let middleware = AuthMiddleware::new(authenticator.clone()).rejection_body(problem_details);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(middleware.clone())
            .route("/health", web::get().to(|| async { "up\n" }))
            .configure(routes)
    });
    let server = server.bind(address)?;
    for address in server.addrs() {
        println!("serving on http://{address}");
    }
    server.run().await?;
    // After the last request: writes the last uses of keys.
    authenticator.close().await;
    Ok(())
}

/// Callers in memory for as long as the database says that nothing has changed; everything else is
/// read and written there.
async fn authenticator(database_url: &str) -> Result<Authenticator, Box<dyn Error>> {
    let repository = Arc::new(PostgresRepository::connect(database_url).await?);
    let nonces = PostgresNonceBackend::new(repository.pool().clone());
    // Each worker of actix-web has a runtime of its own, which ends with it, and so do connections
    // that it opened. What is written after the last request has a pool that no worker uses.
    let usage = PostgresRepository::connect(database_url).await?.batched_usage();
    let users = CachedUserRepository::over(repository, UserCacheOptions::default());
    Ok(Authenticator::builder(Arc::new(users), Arc::new(nonces)).usage(Arc::new(usage)).build()?)
}

/// A module of the application: it takes its middleware from the app's data.
fn routes(config: &mut web::ServiceConfig) {
    let guarded = web::scope("/api")
        .wrap(AuthMiddleware::<User>::from_app_data())
        .route("/hello", web::get().to(hello));
    config.service(guarded);
}

async fn hello(caller: Authenticated) -> String {
    format!("hello, {}, with key {}\n", caller.user().username(), caller.key().key_id())
}
