-- First boot of an empty volume: one database for Keycloak, one for the application, which makes its tables itself.
CREATE DATABASE keycloak_db;
CREATE DATABASE dive_v3_app;
