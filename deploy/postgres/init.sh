#!/bin/sh
# Gives each service of the sample landscape a database of its own, and a user that sees no other. PostgreSQL's image runs
# it when the data folder is new.
set -eu

for service in product recommendation review; do
	psql --set ON_ERROR_STOP=1 --username postgres --set service="$service" --set password="$SHOP_PASSWORD" <<-'END'
		CREATE ROLE :"service" LOGIN PASSWORD :'password';
		CREATE DATABASE :"service" OWNER :"service";
		REVOKE CONNECT ON DATABASE :"service" FROM PUBLIC;
	END
done
