//! With servers of others: nginx, Caddy, Traefik, Envoy, Redis, PostgreSQL, MariaDB, Django.

mod caddy;
mod databases;
mod envoy;
mod migration;
mod nginx;
mod proxy;
mod redis;
mod traefik;
