"""A simulated ChirpStack v4: gRPC services, MQTT events, gateways and the air around the virtual nodes."""
