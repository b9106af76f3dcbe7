"""Files in: read, tell which sequence each series is, register, resample, normalise -> Study."""
