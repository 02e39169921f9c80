CREATE TABLE schema_changes (
	change_id INTEGER NOT NULL,
	schema_version INTEGER,
	changed DATETIME,
	PRIMARY KEY (change_id)
);
INSERT INTO schema_changes (change_id, schema_version, changed) VALUES (1, 30, '2026-03-29 00:30:00.123456');
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
	last_updated DATETIME,
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
INSERT INTO states (state_id, entity_id, state, last_updated, attributes_id, origin_idx) VALUES (1, 'binary_sensor.fp2_office_desk', 'unavailable', '2026-03-29 00:30:00.123456', 1, 0);
INSERT INTO states (state_id, entity_id, state, last_updated, attributes_id, origin_idx) VALUES (2, 'binary_sensor.fp2_office_desk', 'on', '2026-03-29 00:31:00.123456', 1, 0);
INSERT INTO states (state_id, entity_id, state, last_changed, last_updated, attributes_id, origin_idx) VALUES (3, 'binary_sensor.fp2_office_desk', 'on', '2026-03-29 00:31:00.123456', '2026-03-29 00:33:00.123456', 1, 0);
INSERT INTO states (state_id, entity_id, state, last_updated, attributes_id, origin_idx) VALUES (4, 'binary_sensor.fp2_bedroom_bed', 'off', '2026-03-29 00:34:00.123456', 2, 0);
INSERT INTO states (state_id, entity_id, state, last_updated, attributes_id, origin_idx) VALUES (5, 'binary_sensor.front_door', 'on', '2026-03-29 00:35:00.123456', 3, 0);
INSERT INTO states (state_id, entity_id, state, last_updated, attributes_id, origin_idx) VALUES (6, 'sensor.office_temperature', '21.5', '2026-03-29 00:36:00.123456', 4, 0);
INSERT INTO states (state_id, entity_id, state, last_updated, attributes_id, origin_idx) VALUES (7, 'light.kitchen', 'on', '2026-03-29 00:37:00.123456', 5, 0);
INSERT INTO states (state_id, entity_id, state, last_updated, attributes_id, origin_idx) VALUES (8, 'binary_sensor.fp2_office_desk', 'off', '2026-03-29 00:38:00.123456', 1, 0);
INSERT INTO states (state_id, entity_id, state, last_updated, attributes_id, origin_idx) VALUES (9, 'binary_sensor.fp2_bedroom_bed', 'on', '2026-03-29 01:31:00.123456', 2, 0);
INSERT INTO states (state_id, entity_id, state, last_updated, attributes_id, origin_idx) VALUES (10, 'binary_sensor.fp2_bedroom_bed', 'unknown', '2026-03-29 01:32:00.123456', 2, 0);
INSERT INTO states (state_id, entity_id, state, last_updated, attributes_id, origin_idx) VALUES (11, 'binary_sensor.fp2_bedroom_bed', 'off', '2026-03-29 01:33:00.123456', 2, 0);
INSERT INTO states (state_id, entity_id, state, last_updated, attributes_id, origin_idx) VALUES (12, 'binary_sensor.fp2_bedroom_bed', '', '2026-03-29 01:34:00.123456', 2, 0);
CREATE INDEX ix_state_attributes_hash ON state_attributes (hash);
CREATE INDEX ix_states_attributes_id ON states (attributes_id);
CREATE INDEX ix_states_context_id ON states (context_id);
CREATE INDEX ix_states_entity_id_last_updated ON states (entity_id, last_updated);
CREATE INDEX ix_states_event_id ON states (event_id);
CREATE INDEX ix_states_last_updated ON states (last_updated);
CREATE INDEX ix_states_old_state_id ON states (old_state_id);
