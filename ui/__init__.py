# SPDX-License-Identifier: Apache-2.0
"""Shared user interface of the commands: console, figures, signals, the proposed next command."""
