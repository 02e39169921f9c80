CREATE TABLE schema_changes (
	change_id BIGINT NOT NULL AUTO_INCREMENT,
	schema_version INTEGER,
	changed DATETIME(6) NOT NULL,
	PRIMARY KEY (change_id)
)ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE state_attributes (
	attributes_id BIGINT NOT NULL AUTO_INCREMENT,
	hash INTEGER UNSIGNED,
	shared_attrs LONGTEXT,
	PRIMARY KEY (attributes_id)
)ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE states_meta (
	metadata_id BIGINT NOT NULL AUTO_INCREMENT,
	entity_id VARCHAR(255),
	PRIMARY KEY (metadata_id)
)ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE states (
	state_id BIGINT NOT NULL AUTO_INCREMENT,
	entity_id CHAR(0),
	state VARCHAR(255),
	attributes CHAR(0),
	event_id SMALLINT,
	last_changed CHAR(0),
	last_changed_ts DOUBLE,
	last_reported_ts DOUBLE,
	last_updated CHAR(0),
	last_updated_ts DOUBLE,
	old_state_id BIGINT,
	attributes_id BIGINT,
	context_id CHAR(0),
	context_user_id CHAR(0),
	context_parent_id CHAR(0),
	origin_idx SMALLINT,
	context_id_bin BLOB(16),
	context_user_id_bin BLOB(16),
	context_parent_id_bin BLOB(16),
	metadata_id BIGINT,
	PRIMARY KEY (state_id)
)ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
