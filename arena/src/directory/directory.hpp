// Names that survive: a B+tree from names to descriptions of blocks, which is a
// pure algorithm, and on top of it the names of a heap.
#pragma once

#include "directory/store.hpp"
#include "directory/tree.hpp"
