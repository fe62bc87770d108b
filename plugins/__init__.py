"""What runs inside and around verl's processes: registration, the CPU platform, patches, supervision."""
