// Layer 8: heaps as NumPy data-memory handlers (NEP 49).
//
// The callbacks are noexcept, call no Python API, leave the error state alone
// and may run on any thread, with or without the GIL, with an exception
// pending and while the interpreter exits. Everything that touches Python
// (making capsules, dropping them) says so and needs the GIL.
#pragma once

#include "heap/heap.hpp"
#include "resources/resources.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

using PyObject = struct _object;  // NOLINT(bugprone-reserved-identifier): Python's own name

namespace ndarena::numpy {

// One opening's share in a heap. Handlers hold it too, so it lives until the
// last array made through any of them is gone.
class lease {
public:
    explicit lease(std::shared_ptr<heap::heap> h) noexcept : heap_(std::move(h)) {}
    ~lease() = default;
    lease(const lease&) = delete;
    lease& operator=(const lease&) = delete;

    heap::heap& heap() const noexcept { return *heap_; }

    // The lease of this process whose mapping holds an address, if any.
    static std::shared_ptr<lease> find(const void* address);
    static void enroll(const std::shared_ptr<lease>& made);
    // One for the heap: an enrolled one, or a new one.
    static std::shared_ptr<lease> of(std::shared_ptr<heap::heap> h);

private:
    std::shared_ptr<heap::heap> heap_;
};

// Owner of an exported buffer (a Py_buffer made with PyObject_GetBuffer and
// allocated with new). The last owner may be any thread: without the GIL the
// release waits for the next one who has it; after the interpreter has ended
// it is left to the process's end.
std::shared_ptr<void> hold_buffer(void* view);
void release_waiting_buffers() noexcept;  // needs the GIL

// One opening of an arena: closed independently of others of the same segment.
using closed_flag = std::shared_ptr<std::atomic<bool>>;

struct handler_options {
    std::uint64_t min_size = 0;  // smaller requests go to the upstream handler
    bool fallback = false;       // so do those that do not fit
};

// 0, or -1 with a Python exception set.
int import_numpy() noexcept;

// A new capsule named "mem_handler". Its upstream is the current handler, but
// never one of the same heap: entering twice cannot recurse. The capsule keeps
// the lease until it is destroyed, that is, until the last array made with it
// is gone. Null with a Python exception set.
PyObject* make_handler(std::shared_ptr<lease> held, closed_flag closed,
                       const handler_options& options);
std::int64_t live_handlers() noexcept;

// A handler of somebody else as a resource. Keeps the capsule; the last copy is
// let go of with the GIL. Null with a Python exception set if it is no handler.
resources::resource_ptr wrap_handler(PyObject* capsule,
                                     std::shared_ptr<resources::counters> counts);
// Python callables as a resource: malloc(nbytes), calloc(count, size) and
// realloc(address, nbytes) return addresses, free(address) nothing; `calloc` and
// `realloc` may be null. `free_with_size`: free(address, nbytes). They are called
// with the GIL, without a pending exception and with `handler` as the current one;
// what they raise is reported as unraisable, and is a refusal. Keeps them.
struct callables {
    PyObject* malloc = nullptr;
    PyObject* free = nullptr;
    PyObject* calloc = nullptr;
    PyObject* realloc = nullptr;
    PyObject* handler = nullptr;
    bool free_with_size = false;
};
resources::resource_ptr wrap_callables(const callables& to,
                                       std::shared_ptr<resources::counters> counts);
// An allocator of Python as a resource: 'r', 'm' or 'o' for its domains.
resources::resource_ptr wrap_pymem_domain(char domain, std::shared_ptr<resources::counters> counts);
// The PyMemAllocatorEx at an address, which is copied; `owner`, which may be null, keeps what
// it leads to. `needs_gil`: it is called with the GIL only.
resources::resource_ptr wrap_pymem_table(const void* table, bool needs_gil, PyObject* owner,
                                         std::shared_ptr<resources::counters> counts);
// A new capsule with the address of a PyMemAllocatorEx that allocates from `top`; it keeps
// `owner` and `previous`, which may be null. Null with a Python exception set.
PyObject* make_pymem(resources::resource_ptr top, PyObject* owner, PyObject* previous);
constexpr const char* pymem_capsule_name = "PyMemAllocatorEx";
// Python stacks by number. `here` needs no GIL, but knows nothing without it; 0 is no stack.
class stacks : public resources::stack_source {
public:
    // [(file name, line, function)], innermost first; a new reference, null with an
    // exception set.
    virtual PyObject* describe(std::uint32_t id) = 0;
};
// Of at most `depth` frames each.
std::shared_ptr<stacks> make_stacks(unsigned depth);
// A new capsule named "mem_handler" that allocates from `top`. It keeps `owner`,
// any Python object, and `previous`, which may be null, until the last array made
// with it is gone. Null with a Python exception set.
PyObject* make_chain(resources::resource_ptr top, PyObject* owner, PyObject* previous,
                     const std::string& name);
// The current handler (new reference), or what `owner`'s chain came after if that is
// current: entering twice does not nest. Null with a Python exception set.
PyObject* previous_handler(PyObject* owner);
// NumPy's own allocator as a resource, also while `install` stands in for it.
resources::resource_ptr wrap_default(std::shared_ptr<resources::counters> counts);
// The `owner` of a chain, borrowed; null if the capsule is none.
PyObject* owner_of_chain(PyObject* capsule) noexcept;
// The options and an address in the arena of a handler that `make_handler` made; null if
// the capsule is none.
const void* arena_of_handler(PyObject* capsule, handler_options& options) noexcept;
// The `owner` of the chain that an array's data comes from, entered or installed; borrowed,
// null if there is none.
PyObject* owner_of_array(PyObject* array) noexcept;
// The same for memory of a chain that is or was installed.
PyObject* owner_of_installed(const void* p) noexcept;
std::string name_of_handler(PyObject* capsule);

// Current handler (new reference), and setting it: returns the previous one.
// Null with a Python exception set. `capsule` null means NumPy's default.
PyObject* current_handler();
PyObject* exchange_handler(PyObject* capsule);

// Redirects NumPy's default handler, hence every thread and context that has
// no handler of its own. Memory of the former default stays with it.
// `forget_retired` drops arenas that were installed once and are now empty.
bool install(std::shared_ptr<lease> held, closed_flag closed, const handler_options& options);
void uninstall();
// The same for a chain. It keeps `owner` and `previous`, which may be null, until it is
// retired and its last memory is gone.
bool install_chain(resources::resource_ptr top, PyObject* owner, PyObject* previous);
void forget_retired();

// Name of the handler that allocated the array's data, following `.base`;
// empty if no array in the chain has one. `array` must be an ndarray.
std::string handler_name(PyObject* array);
bool is_array(PyObject* object) noexcept;
// Version numbers of the NumPy that this was compiled for.
unsigned abi_version() noexcept;
unsigned api_target() noexcept;
// Address of the array's first byte. `array` must be an ndarray.
const void* data_of(PyObject* array) noexcept;
// The block capsule under the array, which becomes a view of it if it owned
// the memory: NumPy then neither resizes nor reuses what others see. Py_None if
// the memory is not a block that can be sent, null with an exception set.
// `for_sending`: only blocks that other processes can be told of.
PyObject* publish(PyObject* array, bool for_sending = true);
// A capsule with one reference to the block, which is the caller's until this
// succeeds; with `pin`, without a reference. Null with a Python exception set.
PyObject* new_block(std::shared_ptr<lease> held, void* address,
                    std::shared_ptr<const void> pin = nullptr);
// What a block capsule holds; null if it is none.
std::shared_ptr<lease> lease_of_block(PyObject* capsule, void*& address) noexcept;
// An array over part of a block, which it keeps. ValueError if it does not fit.
PyObject* array_over(PyObject* capsule, PyObject* dtype, const std::vector<std::int64_t>& shape,
                     const std::vector<std::int64_t>& strides, std::int64_t offset, bool writeable);
// An array of all of a block that has `nbytes`; `capsule` null for one without
// bytes. ValueError if type and shape say otherwise.
PyObject* whole_array(PyObject* capsule, PyObject* dtype, const std::vector<std::int64_t>& shape,
                      bool fortran, std::uint64_t nbytes, bool writeable);
struct array_layout {
    void* data = nullptr;
    std::uint64_t nbytes = 0;
    std::vector<std::int64_t> shape;
    bool fortran = false;     // its elements lie in Fortran order
    bool contiguous = false;  // in either
};
array_layout layout_of(PyObject* array);
// Bytes from the block's start to the array's first element.
std::int64_t offset_in_block(PyObject* capsule, PyObject* array) noexcept;
// A new int64 array of shape (rows, columns); null with an exception set.
PyObject* new_table(const std::vector<std::int64_t>& values, std::int64_t columns);

}  // namespace ndarena::numpy
