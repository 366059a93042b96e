# SPDX-License-Identifier: Apache-2.0
"""What every command shows alike: console, pictures, how it is stopped, the next step it proposes."""
