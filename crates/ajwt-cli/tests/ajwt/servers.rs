//! With servers of others: nginx, Redis, PostgreSQL, MariaDB, Django.

mod databases;
mod migration;
mod nginx;
mod redis;
