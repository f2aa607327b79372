# What a builder may choose, and the flags that every target shares.
option(ATTUNE_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(ATTUNE_BUILD_BENCH "Build the benchmarks" ${PROJECT_IS_TOP_LEVEL})
option(ATTUNE_BUILD_CLI "Build the attune command" ON)
option(ATTUNE_INSTALL "Make install rules" ${PROJECT_IS_TOP_LEVEL})
option(ATTUNE_WERROR "Treat warnings as errors" ${PROJECT_IS_TOP_LEVEL})
option(ATTUNE_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
option(ATTUNE_STATIC_ZSTD "Link libzstd.a, so that the result does not need libzstd.so" OFF)
set(ATTUNE_SANITIZE "" CACHE STRING "Sanitizers for every target, e.g. address,undefined or thread")
set(ATTUNE_BUNDLE "" CACHE FILEPATH "A bundle of compiled kernels (attune compile) to embed in the library")
set(ATTUNE_GRID_COUNT "" CACHE STRING "Problems in the test grid; empty is the grid's own default")

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# One interface target carries the language level, warnings and sanitizers. Targets link it with
# PRIVATE, so that none of it reaches a program that uses the installed library.
add_library(attune_flags INTERFACE)
target_compile_features(attune_flags INTERFACE cxx_std_20)
target_compile_options(attune_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wno-psabi>
  # GCC 12 sees overlaps in std::string's operator+ that are not there (its bug 105651).
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
  $<$<BOOL:${ATTUNE_WERROR}>:-Werror>)
set(ATTUNE_KERNEL_OPTIMIZE -O3)
if(ATTUNE_SANITIZE)
  # A finding ends the program: a test that prints one and passes would hide it.
  set(sanitize -fsanitize=${ATTUNE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  # Of functions from another library (CUDA's driver, its stand-in) clang finds no type that it knows.
  if(ATTUNE_SANITIZE MATCHES undefined AND CMAKE_CXX_COMPILER_ID MATCHES Clang)
    list(APPEND sanitize -fno-sanitize=function)
  endif()
  target_compile_options(attune_flags INTERFACE ${sanitize})
  target_link_options(attune_flags INTERFACE ${sanitize})
  # Instrumented -O3 takes three times as long to compile, five times over.
  set(ATTUNE_KERNEL_OPTIMIZE -O1)
endif()
if(ATTUNE_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "ATTUNE_FUZZ needs libFuzzer, which only clang has; this is "
      "${CMAKE_CXX_COMPILER_ID}. Use: cmake --preset fuzz")
  endif()
  target_compile_options(attune_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
