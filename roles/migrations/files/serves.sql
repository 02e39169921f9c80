-- What the application must be able to do before a host counts as migrated; rolled back.
INSERT INTO sensor_readings (timestamp, room, zone, state, source_entity) VALUES (now(), 'office', 'gate', false, 'gate');
SELECT room, occupancy_status FROM room_occupancy_status;
