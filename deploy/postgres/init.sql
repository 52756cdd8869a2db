-- One database and one role per service, each role shut out of all the others. Read by `docker compose up` (as the
-- image's init script) and by `make run` (deploy/local/postgres.py), statement by statement.
-- The passwords are for development; for anything else: ALTER ROLE <name> PASSWORD '...', and the service's
-- <NAME>_DATABASE_URL with it.

CREATE ROLE users LOGIN PASSWORD 'users';
CREATE ROLE catalog LOGIN PASSWORD 'catalog';
CREATE ROLE orders LOGIN PASSWORD 'orders';
CREATE ROLE inventory LOGIN PASSWORD 'inventory';
CREATE ROLE payments LOGIN PASSWORD 'payments';
CREATE ROLE notifications LOGIN PASSWORD 'notifications';

CREATE DATABASE users OWNER users;
CREATE DATABASE catalog OWNER catalog;
CREATE DATABASE orders OWNER orders;
CREATE DATABASE inventory OWNER inventory;
CREATE DATABASE payments OWNER payments;
CREATE DATABASE notifications OWNER notifications;

REVOKE CONNECT ON DATABASE users FROM PUBLIC;
REVOKE CONNECT ON DATABASE catalog FROM PUBLIC;
REVOKE CONNECT ON DATABASE orders FROM PUBLIC;
REVOKE CONNECT ON DATABASE inventory FROM PUBLIC;
REVOKE CONNECT ON DATABASE payments FROM PUBLIC;
REVOKE CONNECT ON DATABASE notifications FROM PUBLIC;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
REVOKE CONNECT ON DATABASE template1 FROM PUBLIC;
