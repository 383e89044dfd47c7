"""What is compared: imputers, variants, the published figures."""
