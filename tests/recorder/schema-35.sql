CREATE TABLE schema_changes (
	change_id INTEGER NOT NULL,
	schema_version INTEGER,
	changed DATETIME NOT NULL,
	PRIMARY KEY (change_id)
);
INSERT INTO schema_changes (change_id, schema_version, changed) VALUES (1, 35, '2026-03-29 00:30:00.123456');
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
CREATE TABLE states (
	state_id INTEGER NOT NULL,
	entity_id VARCHAR(255),
	state VARCHAR(255),
	attributes TEXT,
	event_id INTEGER,
	last_changed DATETIME,
	last_changed_ts FLOAT,
	last_updated DATETIME,
	last_updated_ts FLOAT,
	old_state_id INTEGER,
	attributes_id INTEGER,
	context_id VARCHAR(36),
	context_user_id VARCHAR(36),
	context_parent_id VARCHAR(36),
	origin_idx SMALLINT,
	PRIMARY KEY (state_id),
	FOREIGN KEY(event_id) REFERENCES events (event_id) ON DELETE CASCADE,
	FOREIGN KEY(old_state_id) REFERENCES states (state_id),
	FOREIGN KEY(attributes_id) REFERENCES state_attributes (attributes_id)
);
INSERT INTO states (state_id, entity_id, state, last_updated_ts, attributes_id, origin_idx) VALUES (1, 'binary_sensor.fp2_office_desk', 'unavailable', 1.77474420012345600133e+09, 1, 0);
INSERT INTO states (state_id, entity_id, state, last_updated_ts, attributes_id, origin_idx) VALUES (2, 'binary_sensor.fp2_office_desk', 'on', 1.77474426012345600127e+09, 1, 0);
INSERT INTO states (state_id, entity_id, state, last_changed_ts, last_updated_ts, attributes_id, origin_idx) VALUES (3, 'binary_sensor.fp2_office_desk', 'on', 1.77474426012345600127e+09, 1.77474438012345600125e+09, 1, 0);
INSERT INTO states (state_id, entity_id, state, last_updated_ts, attributes_id, origin_idx) VALUES (4, 'binary_sensor.fp2_bedroom_bed', 'off', 1.77474444012345600133e+09, 2, 0);
INSERT INTO states (state_id, entity_id, state, last_updated_ts, attributes_id, origin_idx) VALUES (5, 'binary_sensor.front_door', 'on', 1.77474450012345600128e+09, 3, 0);
INSERT INTO states (state_id, entity_id, state, last_updated_ts, attributes_id, origin_idx) VALUES (6, 'sensor.office_temperature', '21.5', 1.77474456012345600123e+09, 4, 0);
INSERT INTO states (state_id, entity_id, state, last_updated_ts, attributes_id, origin_idx) VALUES (7, 'light.kitchen', 'on', 1.7747446201234560013e+09, 5, 0);
INSERT INTO states (state_id, entity_id, state, last_updated_ts, attributes_id, origin_idx) VALUES (8, 'binary_sensor.fp2_office_desk', 'off', 1.77474468012345600129e+09, 1, 0);
INSERT INTO states (state_id, entity_id, state, last_updated_ts, attributes_id, origin_idx) VALUES (9, 'binary_sensor.fp2_bedroom_bed', 'on', 1.77474786012345600127e+09, 2, 0);
INSERT INTO states (state_id, entity_id, state, last_updated_ts, attributes_id, origin_idx) VALUES (10, 'binary_sensor.fp2_bedroom_bed', 'unknown', 1.77474792012345600122e+09, 2, 0);
INSERT INTO states (state_id, entity_id, state, last_updated_ts, attributes_id, origin_idx) VALUES (11, 'binary_sensor.fp2_bedroom_bed', 'off', 1.7747479801234560013e+09, 2, 0);
INSERT INTO states (state_id, entity_id, state, last_updated_ts, attributes_id, origin_idx) VALUES (12, 'binary_sensor.fp2_bedroom_bed', '', 1.77474804012345600129e+09, 2, 0);
CREATE INDEX ix_state_attributes_hash ON state_attributes (hash);
CREATE INDEX ix_states_attributes_id ON states (attributes_id);
CREATE INDEX ix_states_context_id ON states (context_id);
CREATE INDEX ix_states_entity_id_last_updated_ts ON states (entity_id, last_updated_ts);
CREATE INDEX ix_states_event_id ON states (event_id);
CREATE INDEX ix_states_last_updated_ts ON states (last_updated_ts);
CREATE INDEX ix_states_old_state_id ON states (old_state_id);
