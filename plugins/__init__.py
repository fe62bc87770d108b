"""What runs inside verl's processes: registration, patches, rollouts, the CPU platform."""
