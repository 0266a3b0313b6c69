#!/bin/sh
# Run by the image of PostgreSQL when its volume is empty: one database and one account for each user of it.
set -eu
database() {
  # The password is a variable of psql: it stands neither in the statement's text here nor in a process list.
  NEW_PASSWORD=$2 psql --set=ON_ERROR_STOP=1 --no-psqlrc --quiet \
    --username "$POSTGRES_USER" --dbname "${POSTGRES_DB:-$POSTGRES_USER}" --set=name="$1" <<'SQL'
\getenv password NEW_PASSWORD
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name" ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}
database ledger "${LEDGER_DB_PASSWORD:?}"
database dagster "${DAGSTER_DB_PASSWORD:?}"
database phoenix "${PHOENIX_DB_PASSWORD:?}"
