"""LoRaWAN: firmware over the air beside a network server. Codecs, keys, coding and sessions are pure; shells wrap them."""
