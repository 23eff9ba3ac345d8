//! With servers of others: nginx, Caddy, Redis, PostgreSQL, MariaDB, Django.

mod caddy;
mod databases;
mod migration;
mod nginx;
mod redis;
