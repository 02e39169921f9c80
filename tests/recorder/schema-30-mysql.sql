CREATE TABLE schema_changes (
	change_id INTEGER NOT NULL AUTO_INCREMENT,
	schema_version INTEGER,
	changed DATETIME(6),
	PRIMARY KEY (change_id)
);
CREATE TABLE state_attributes (
	attributes_id INTEGER NOT NULL AUTO_INCREMENT,
	hash BIGINT,
	shared_attrs LONGTEXT,
	PRIMARY KEY (attributes_id)
)DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE states (
	state_id INTEGER NOT NULL AUTO_INCREMENT,
	entity_id VARCHAR(255),
	state VARCHAR(255),
	attributes LONGTEXT,
	event_id INTEGER,
	last_changed DATETIME(6),
	last_updated DATETIME(6),
	old_state_id INTEGER,
	attributes_id INTEGER,
	context_id VARCHAR(36),
	context_user_id VARCHAR(36),
	context_parent_id VARCHAR(36),
	origin_idx SMALLINT,
	PRIMARY KEY (state_id)
)DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
