# SPDX-License-Identifier: Apache-2.0
"""What is measured: levels of the system, load on a server, better settings, long runs with faults."""
