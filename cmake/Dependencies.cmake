# Every dependency comes from the system; a missing one is named with its Debian package.
function(attune_need NAME PACKAGE)
  find_package(${NAME} QUIET)
  if(NOT ${NAME}_FOUND)
    message(FATAL_ERROR "${NAME} was not found. Install it with: apt-get install ${PACKAGE}")
  endif()
endfunction()

# Sets ATTUNE_PYTHON to a Python 3 that imports numpy. The one that is first on PATH may be a
# user's own, without Debian's packages, so the system's is tried too.
function(attune_need_python)
  if(ATTUNE_PYTHON)
    return()
  endif()
  foreach(candidate python3 /usr/bin/python3)
    execute_process(COMMAND ${candidate} -c "import numpy, sys; print(sys.executable)"
                    OUTPUT_VARIABLE path ERROR_QUIET RESULT_VARIABLE result
                    OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(result EQUAL 0)
      set(ATTUNE_PYTHON ${path} CACHE FILEPATH "A Python 3 with numpy, for the tests")
      return()
    endif()
  endforeach()
  message(FATAL_ERROR "No python3 with numpy was found; the tests need one. Install it with: "
    "apt-get install python3-numpy, or name yours: -DATTUNE_PYTHON=/path/to/python3")
endfunction()

# attune_need_header(HEADER PACKAGE): for a library without a CMake package that every system has.
function(attune_need_header HEADER PACKAGE)
  string(MAKE_C_IDENTIFIER "ATTUNE_HAS_${HEADER}" variable)
  find_path(${variable} ${HEADER})
  mark_as_advanced(${variable})
  if(NOT ${variable})
    message(FATAL_ERROR "${HEADER} was not found. Install it with: apt-get install ${PACKAGE}")
  endif()
endfunction()

find_package(Threads REQUIRED)
attune_need(fmt libfmt-dev)
attune_need(nlohmann_json nlohmann-json3-dev)
attune_need_header(xxhash.h libxxhash-dev)
attune_need_header(zstd.h libzstd-dev)
if(ATTUNE_BUILD_CLI)
  attune_need(CLI11 libcli11-dev)
  attune_need(PNG libpng-dev)
endif()
if(ATTUNE_BUILD_TESTS)
  attune_need(GTest libgtest-dev)
  attune_need_python()
endif()
