"""Native code for passes on a processor: C++ that the machine's own compiler builds."""
