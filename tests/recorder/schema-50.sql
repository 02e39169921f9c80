CREATE TABLE schema_changes (
	change_id INTEGER NOT NULL,
	schema_version INTEGER,
	changed DATETIME NOT NULL,
	PRIMARY KEY (change_id)
);
INSERT INTO schema_changes (change_id, schema_version, changed) VALUES (1, 50, '2026-03-29 00:30:00.123456');
CREATE TABLE state_attributes (
	attributes_id INTEGER NOT NULL,
	hash BIGINT,
	shared_attrs TEXT,
	PRIMARY KEY (attributes_id)
);
INSERT INTO state_attributes (attributes_id, hash, shared_attrs) VALUES (1, 0, '{"friendly_name": "FP2 Office Desk", "device_class": "occupancy"}');
INSERT INTO state_attributes (attributes_id, hash, shared_attrs) VALUES (2, 0, '{"friendly_name": "FP2 Bedroom Bed", "device_class": "occupancy"}');
INSERT INTO state_attributes (attributes_id, hash, shared_attrs) VALUES (3, 0, '{"friendly_name": "Front door", "device_class": "door"}');
INSERT INTO state_attributes (attributes_id, hash, shared_attrs) VALUES (4, 0, '{"friendly_name": "Office temperature"}');
INSERT INTO state_attributes (attributes_id, hash, shared_attrs) VALUES (5, 0, '{"friendly_name": "Kitchen"}');
CREATE TABLE states_meta (
	metadata_id INTEGER NOT NULL,
	entity_id VARCHAR(255),
	PRIMARY KEY (metadata_id)
);
INSERT INTO states_meta (metadata_id, entity_id) VALUES (1, 'binary_sensor.fp2_office_desk');
INSERT INTO states_meta (metadata_id, entity_id) VALUES (2, 'binary_sensor.fp2_bedroom_bed');
INSERT INTO states_meta (metadata_id, entity_id) VALUES (3, 'binary_sensor.front_door');
INSERT INTO states_meta (metadata_id, entity_id) VALUES (4, 'sensor.office_temperature');
INSERT INTO states_meta (metadata_id, entity_id) VALUES (5, 'light.kitchen');
CREATE TABLE states (
	state_id INTEGER NOT NULL,
	entity_id CHAR(0),
	state VARCHAR(255),
	attributes CHAR(0),
	event_id SMALLINT,
	last_changed CHAR(0),
	last_changed_ts FLOAT,
	last_reported_ts FLOAT,
	last_updated CHAR(0),
	last_updated_ts FLOAT,
	old_state_id INTEGER,
	attributes_id INTEGER,
	context_id CHAR(0),
	context_user_id CHAR(0),
	context_parent_id CHAR(0),
	origin_idx SMALLINT,
	context_id_bin BLOB,
	context_user_id_bin BLOB,
	context_parent_id_bin BLOB,
	metadata_id INTEGER,
	PRIMARY KEY (state_id),
	FOREIGN KEY(old_state_id) REFERENCES states (state_id),
	FOREIGN KEY(attributes_id) REFERENCES state_attributes (attributes_id),
	FOREIGN KEY(metadata_id) REFERENCES states_meta (metadata_id)
);
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (1, 'unavailable', 1.77474420012345600133e+09, 1, 0, 1);
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (2, 'on', 1.77474426012345600127e+09, 1, 0, 1);
INSERT INTO states (state_id, state, last_changed_ts, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (3, 'on', 1.77474426012345600127e+09, 1.77474438012345600125e+09, 1, 0, 1);
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (4, 'off', 1.77474444012345600133e+09, 2, 0, 2);
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (5, 'on', 1.77474450012345600128e+09, 3, 0, 3);
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (6, '21.5', 1.77474456012345600123e+09, 4, 0, 4);
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (7, 'on', 1.7747446201234560013e+09, 5, 0, 5);
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (8, 'off', 1.77474468012345600129e+09, 1, 0, 1);
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (9, 'on', 1.77474786012345600127e+09, 2, 0, 2);
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (10, 'unknown', 1.77474792012345600122e+09, 2, 0, 2);
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (11, 'off', 1.7747479801234560013e+09, 2, 0, 2);
INSERT INTO states (state_id, state, last_updated_ts, attributes_id, origin_idx, metadata_id) VALUES (12, '', 1.77474804012345600129e+09, 2, 0, 2);
CREATE INDEX ix_state_attributes_hash ON state_attributes (hash);
CREATE INDEX ix_states_attributes_id ON states (attributes_id);
CREATE INDEX ix_states_context_id_bin ON states (context_id_bin);
CREATE INDEX ix_states_last_updated_ts ON states (last_updated_ts);
CREATE UNIQUE INDEX ix_states_meta_entity_id ON states_meta (entity_id);
CREATE INDEX ix_states_metadata_id_last_updated_ts ON states (metadata_id, last_updated_ts);
CREATE INDEX ix_states_old_state_id ON states (old_state_id);
