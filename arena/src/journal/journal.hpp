// Layer 3: what makes a change of several words all or nothing against the
// death of the process. Knows no operating system.
#pragma once

#include "journal/undo_log.hpp"
